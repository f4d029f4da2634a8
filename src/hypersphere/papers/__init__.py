"""Papers: what each item consists of (YAML under conf/paper/), and the plan of its runs."""
