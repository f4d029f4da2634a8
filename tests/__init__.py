import pytest

pytest.register_assert_rewrite("tests.miniatures", "tests.publisher")
