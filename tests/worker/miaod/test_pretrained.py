from __future__ import annotations

from pathlib import Path
from urllib.error import URLError

import pytest
import torch
import torchvision

from worker.miaod.backbones import build_backbone
from worker.miaod.pretrained import PretrainedWeightsMissing, imagenet_weights

FILE = "resnet18-f37072fd.pth"
DOWNLOAD = "torchvision.models._api.load_state_dict_from_url"


def no_way_out(*_: object, **__: object) -> None:
    raise URLError("Name or service not known")


def test_weights_that_cannot_be_had_are_named_with_the_place_where_they_belong(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(DOWNLOAD, no_way_out)
    with pytest.raises(PretrainedWeightsMissing) as missing:
        imagenet_weights("resnet50", tmp_path / "weights")
    sentence = str(missing.value)
    assert f"IMAGENET1K_V1 file resnet50-0676ba61.pth into {tmp_path / 'weights'}" in sentence
    assert "Name or service not known" in sentence


def test_vgg16_wants_the_file_that_was_published_for_ssd(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(DOWNLOAD, no_way_out)
    file = "vgg16_features-amdegroot-88682ab5.pth"
    with pytest.raises(PretrainedWeightsMissing, match=f"IMAGENET1K_FEATURES file {file} into"):
        imagenet_weights("vgg16", tmp_path / "weights")


def test_weights_are_downloaded_once_with_their_hash_checked(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    downloads: list[dict[str, object]] = []

    def download(url: str, *, model_dir: str, **options: object) -> None:
        downloads.append({"file": url.rpartition("/")[2], **options})
        resnet = torchvision.models.resnet18(weights=None)
        torch.save(resnet.state_dict(), Path(model_dir) / FILE)

    monkeypatch.setattr(DOWNLOAD, download)
    first = imagenet_weights("resnet18", tmp_path / "weights")
    again = imagenet_weights("resnet18", tmp_path / "weights")
    assert downloads == [{"file": FILE, "progress": False, "check_hash": True}]
    assert torch.equal(first["fc.weight"], again["fc.weight"])


def test_a_damaged_weight_file_is_named(tmp_path: Path) -> None:
    (tmp_path / FILE).write_bytes(b"not weights")
    with pytest.raises(PretrainedWeightsMissing, match=rf"{FILE} cannot be read"):
        imagenet_weights("resnet18", tmp_path)


def test_a_backbone_starts_from_the_file_in_the_folder(tmp_path: Path) -> None:
    resnet = torchvision.models.resnet18(weights=None)
    torch.save(resnet.state_dict(), tmp_path / FILE)
    backbone = build_backbone(
        "resnet18", pretrained=True, weights_dir=tmp_path, generator=torch.Generator()
    )
    weight = backbone.get_parameter("stages.4.1.conv2.weight")
    assert torch.equal(weight, resnet.layer4[1].conv2.weight)
