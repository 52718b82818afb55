"""Opening data sets by name: the embedded digits, CIFAR's files, image folders; and what is said of wrong ones."""

from __future__ import annotations

import functools
import hashlib
import http.server
import io
import os
import pickle
import shutil
import subprocess
import sys
import tarfile
import threading
import tracemalloc
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from finet_deploy.data import DATASETS, open_dataset
from finet_deploy.data.dataset import ArrayDataset, BadImage
from finet_deploy.data.names import dataset_info
from finet_deploy.data.pickles import read_plain_pickle
from finet_deploy.errors import FinetDeployError, UsageError
from tests.data_sets import make_cifar, make_image_folder, write_pickle

# Digits: the indices held out, as bytes of int64. If this changes, accuracies are no longer comparable.
HELD_OUT_SHA256 = "3530be80b9605f4c4adc46d0ee3006a356c16968a8efcc58f24463bc820d5ef9"
DIGITS_FINGERPRINTS = ("76325051d513733f", "a83a361319e845ef")


def test_names_and_their_facts_load_no_torch():
    program = "import sys; import finet_deploy.data, finet_deploy.data.names; print('torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"


def test_unknown_names_and_impossible_options_are_usage_errors(tmp_path):
    for call, text in (
        (lambda: open_dataset("cifar", "train"), "did you mean 'cifar10'"),
        (lambda: open_dataset("digits", "test"), "unknown split"),
        (lambda: open_dataset("digits", "val", download=True), "digits cannot be downloaded"),
        (lambda: open_dataset("digits", "val", folder=tmp_path), "needs no folder"),
        (lambda: open_dataset("cifar10", "val"), "give --data DIR"),
        (lambda: open_dataset("folder", "val"), "give --data DIR"),
    ):
        with pytest.raises(UsageError, match=text):
            call()


# digits


def test_digits_hold_out_a_fifth_of_every_class_and_always_the_same():
    from sklearn.datasets import load_digits

    from finet_deploy.data.digits import split_digits

    labels = load_digits().target.astype(np.int64)
    train, held_out = split_digits(labels)
    assert sorted([*train, *held_out]) == list(range(1797))
    for digit in range(10):
        own, total = (labels[held_out] == digit).sum(), (labels == digit).sum()
        assert abs(own - total / 5) <= 0.5
    assert hashlib.sha256(held_out.astype("<i8").tobytes()).hexdigest() == HELD_OUT_SHA256


def test_digits_are_the_packages_images_at_32_px_and_the_bytes_never_change():
    from sklearn.datasets import load_digits

    from finet_deploy.data.digits import split_digits

    data = load_digits()
    train, val = open_dataset("digits", "train"), open_dataset("digits", "val")
    assert (len(train), len(val)) == (1438, 359)
    assert (train.fingerprint, val.fingerprint) == DIGITS_FINGERPRINTS
    chosen = split_digits(data.target)[1]
    image, label = val[17]
    assert label == data.target[chosen[17]]
    assert (image.dtype, image.shape) == (torch.uint8, (3, 32, 32))
    assert torch.equal(image[0], image[2])
    # Averaged back to 8x8, bilinear enlarging keeps the picture.
    small = torch.nn.functional.avg_pool2d(image[:1].float(), 4)[0].numpy() / 255 * 16
    assert np.corrcoef(small.ravel(), data.images[chosen[17]].ravel())[0, 1] > 0.97


def test_the_stated_mean_and_deviation_of_digits_are_those_of_its_training_images():
    train, info = open_dataset("digits", "train"), DATASETS["digits"]
    pixels = torch.stack([train[index][0] for index in range(len(train))]).double() / 255
    assert info.mean == pytest.approx(pixels.mean((0, 2, 3)).tolist(), abs=1e-4)
    assert info.std == pytest.approx(pixels.std((0, 2, 3)).tolist(), abs=1e-4)
    assert info.num_classes == len(train.classes)


def test_labels_out_of_range_are_named_with_their_image():
    images = np.zeros((3, 3, 4, 4), np.uint8)
    with pytest.raises(FinetDeployError, match=r"1 labels .* image 2 has label 5, .* 2 classes \(0 to 1\)"):
        ArrayDataset("mine", images, np.array([0, 1, 5]), ["a", "b"])
    with pytest.raises(FinetDeployError, match="image 0 has label -1"):
        ArrayDataset("mine", images, np.array([-1, 1, 0]), ["a", "b"])


# CIFAR


@pytest.mark.parametrize(("name", "classes"), [("cifar10", 10), ("cifar100", 100)])
def test_cifar_is_read_from_the_published_form(tmp_path, name, classes):
    make_cifar(tmp_path, classes=classes, train=2 * classes, test=classes)
    train, val = open_dataset(name, "train", folder=tmp_path), open_dataset(name, "val", folder=tmp_path)
    assert (len(train), len(val), len(train.classes)) == (2 * classes, classes, classes)
    assert train.classes[3] == "class_3"
    assert [val[index][1] for index in range(classes)] == list(range(classes))
    assert sorted(train[index][1] for index in range(len(train))) == sorted(list(range(classes)) * 2)
    file = {10: "cifar-10-batches-py/test_batch", 100: "cifar-100-python/test"}[classes]
    assert val[3][0].tolist() == unpickled(tmp_path / file)[b"data"][3].reshape(3, 32, 32).tolist()
    assert train.fingerprint != val.fingerprint


def unpickled(path: Path) -> dict[bytes, object]:
    return pickle.loads(path.read_bytes())  # noqa: S301 - a file that the test made


def python2_batch(pixels: np.ndarray, labels: list[int]) -> bytes:
    """A batch file as Python 2 and numpy 1 wrote the published ones: protocol 2, byte strings, old module names."""

    def text(value: bytes) -> bytes:
        return b"T" + len(value).to_bytes(4, "little") + value

    array = b"cnumpy.core.multiarray\n_reconstruct\ncnumpy\nndarray\nK\x00\x85U\x01b\x87R"
    dtype = b"cnumpy\ndtype\nU\x02u1K\x00K\x01\x87R(K\x03U\x01|NNNJ\xff\xff\xff\xffJ\xff\xff\xff\xffK\x00tb"
    shape = b"K" + bytes([pixels.shape[0]]) + b"M" + pixels.shape[1].to_bytes(2, "little") + b"\x86"
    state = b"(K\x01" + shape + dtype + b"\x89" + text(pixels.tobytes()) + b"tb"
    numbers = b"](" + b"".join(b"K" + bytes([label]) for label in labels) + b"e"
    return b"\x80\x02}(" + text(b"data") + array + state + text(b"labels") + numbers + b"u."


def test_a_file_written_by_python_2_is_read(tmp_path):
    pixels = np.random.RandomState(0).randint(0, 256, (3, 3072)).astype(np.uint8)
    data = python2_batch(pixels, [3, 1, 2])
    assert pickle.loads(data, encoding="bytes")[b"labels"] == [3, 1, 2]  # noqa: S301 - ours; the form is right
    make_cifar(tmp_path)
    (tmp_path / "cifar-10-batches-py" / "test_batch").write_bytes(data)
    val = open_dataset("cifar10", "val", folder=tmp_path)
    assert [val[index][1] for index in range(3)] == [3, 1, 2]
    assert torch.equal(torch.stack([val[i][0] for i in range(3)]).reshape(3, -1), torch.from_numpy(pixels))


class Evil:
    def __init__(self, function, *arguments):
        self.call = function, arguments

    def __reduce__(self):
        return self.call


@pytest.mark.parametrize(
    "content",
    [
        Evil(os.system, "touch was_here"),
        Evil(eval, "open('was_here', 'w')"),
        {b"data": Evil(Path, "x")},
        Evil(bytearray, 5),
        np.array([Evil(os.system, "touch was_here")], dtype=object),
        {b"data": np.zeros((2, 3072), np.float32), b"labels": [0, 1]},
        {b"data": np.asfortranarray(np.zeros((2, 3072), np.uint8)), b"labels": [0, 1]},
        [[[[[[1]]]]]],
        {b"data": {1, 2}},
    ],
)
def test_a_pickle_that_asks_for_anything_else_is_refused_and_nothing_is_run(tmp_path, monkeypatch, content):
    monkeypatch.chdir(tmp_path)
    write_pickle(tmp_path / "file", content)
    with pytest.raises(FinetDeployError, match="code from a file is never run"):
        read_plain_pickle(tmp_path / "file", 1 << 20)
    assert not Path("was_here").exists()


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"\x80\x02",
        b"not a pickle",
        b"\x80\x02N2222",
        b"\x80\x02Nr\xff\xff\xff\x7f",  # a memo index of 2^31: the C unpickler would reserve 32 GB
        b"\x80\x02T\xff\xff\xff\x7fabc.",
        b"\x80\x02c_codecs\nencode\nX\x01\x00\x00\x00aX\x04\x00\x00\x00zlib\x86R.",
    ],
)
def test_damaged_pickles_are_one_clear_error(tmp_path, data):
    (tmp_path / "file").write_bytes(data)
    with pytest.raises(FinetDeployError, match=r"truncated.*file\]"):
        read_plain_pickle(tmp_path / "file", 1 << 20)


def test_a_memo_index_does_not_reserve_memory(tmp_path):
    """The C unpickler would take 268 MB for these seven bytes."""
    (tmp_path / "file").write_bytes(b"\x80\x02K\x01r\xff\xff\xff\x00.")
    tracemalloc.start()
    try:
        assert read_plain_pickle(tmp_path / "file", 1 << 20) == 1
        assert tracemalloc.get_traced_memory()[1] < 1 << 24
    finally:
        tracemalloc.stop()


def test_every_truncation_of_a_cifar_file_is_an_error_that_names_it(tmp_path):
    make_cifar(tmp_path, train=10, test=2)
    path = tmp_path / "cifar-10-batches-py" / "test_batch"
    data = path.read_bytes()
    for length in range(0, len(data), 97):
        path.write_bytes(data[:length])
        with pytest.raises(FinetDeployError, match=r"test_batch\]; remove it and give --download"):
            open_dataset("cifar10", "val", folder=tmp_path)


@pytest.mark.parametrize(
    ("change", "text"),
    [
        ({b"labels": [0, 1, 2, 3]}, "5 images, but 4 labels"),
        ({b"labels": [0, 1, 2, 3, 10]}, r"image 4 has label 10, there are 10 classes \(0 to 9\)"),
        ({b"labels": [0, 1, 2, 3, 1 << 70]}, "labels are out of range"),
        ({b"labels": [0, 1, 2, 3, "4"]}, "no list of labels"),
        ({b"data": np.zeros((5, 300), np.uint8)}, "no images of 3 x 32 x 32"),
        ({b"data": [1, 2]}, "no images of 3 x 32 x 32"),
    ],
)
def test_what_a_cifar_batch_must_hold_is_told(tmp_path, change, text):
    make_cifar(tmp_path, test=5)
    path = tmp_path / "cifar-10-batches-py" / "test_batch"
    write_pickle(path, {**unpickled(path), **change})
    with pytest.raises(FinetDeployError, match=rf"{text}.*test_batch"):
        open_dataset("cifar10", "val", folder=tmp_path)


def test_a_missing_set_a_missing_file_and_wrong_names_say_what_to_do(tmp_path):
    with pytest.raises(FinetDeployError, match=r"no cifar-10-batches-py/ here.*--download"):
        open_dataset("cifar10", "train", folder=tmp_path)
    root = make_cifar(tmp_path) / "cifar-10-batches-py"
    (root / "data_batch_3").unlink()
    with pytest.raises(FinetDeployError, match=r"missing: data_batch_3 .*--download"):
        open_dataset("cifar10", "val", folder=tmp_path)
    (root / "data_batch_3").write_bytes((root / "data_batch_2").read_bytes())
    write_pickle(root / "batches.meta", {b"label_names": [b"cat"]})
    with pytest.raises(FinetDeployError, match="no 10 names"):
        open_dataset("cifar10", "val", folder=tmp_path)


# CIFAR's download: torchvision fetches from a server in this process


@pytest.fixture
def published(tmp_path, monkeypatch):
    """An archive of a small set in place of the published one, behind an address of this machine."""
    from torchvision.datasets import CIFAR10

    make_cifar(tmp_path / "made")
    archive = tmp_path / "server" / "cifar-10-python.tar.gz"
    archive.parent.mkdir()
    with tarfile.open(archive, "w:gz") as tar:
        tar.add(tmp_path / "made" / "cifar-10-batches-py", "cifar-10-batches-py")
    handler = functools.partial(QuietHandler, directory=str(archive.parent))
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        monkeypatch.setattr(CIFAR10, "url", f"http://127.0.0.1:{server.server_port}/{archive.name}")
        monkeypatch.setattr(CIFAR10, "tgz_md5", hashlib.md5(archive.read_bytes()).hexdigest())
        yield archive
        server.shutdown()


class QuietHandler(http.server.SimpleHTTPRequestHandler):
    def log_message(self, *arguments: object) -> None:
        """Nothing on the tests' stderr."""


def opened_after_download(folder: Path) -> int:
    return len(open_dataset("cifar10", "train", folder=folder, download=True))


def test_a_download_fills_an_empty_folder_and_is_not_repeated(tmp_path, published):
    assert opened_after_download(tmp_path / "new") == 50
    published.unlink()
    assert opened_after_download(tmp_path / "new") == 50


def test_an_interrupted_download_is_told_and_replaced(tmp_path, published):
    folder = tmp_path / "new"
    folder.mkdir()
    (folder / published.name).write_bytes(published.read_bytes()[:1000])
    with pytest.raises(
        FinetDeployError, match=r"download was interrupted.*1,000 bytes.*tar.gz\]; .*--download"
    ):
        open_dataset("cifar10", "train", folder=folder)
    assert opened_after_download(folder) == 50


def test_an_archive_that_was_not_unpacked_is_told_and_used(tmp_path, published):
    folder = tmp_path / "new"
    folder.mkdir()
    shutil.move(published, folder)
    with pytest.raises(FinetDeployError, match="was not unpacked"):
        open_dataset("cifar10", "train", folder=folder)
    assert opened_after_download(folder) == 50


def test_a_failing_download_names_the_archive_and_leaves_no_half_of_it(tmp_path, published):
    published.write_bytes(published.read_bytes()[:1000])
    with pytest.raises(
        FinetDeployError, match=r"the download failed or was interrupted.*cifar-10-python.tar.gz"
    ):
        opened_after_download(tmp_path / "new")
    assert not (tmp_path / "new" / published.name).exists()


def test_ctrl_c_during_a_download_leaves_no_half_of_it(tmp_path, published, monkeypatch):
    from torchvision.datasets import utils

    def interrupted(url, root, **options):
        Path(root, published.name).write_bytes(b"half")
        raise KeyboardInterrupt

    monkeypatch.setattr(utils, "download_and_extract_archive", interrupted)
    with pytest.raises(KeyboardInterrupt):
        opened_after_download(tmp_path / "new")
    assert not (tmp_path / "new" / published.name).exists()


def test_a_set_that_can_be_read_is_never_replaced_by_a_download(tmp_path, published):
    make_cifar(tmp_path / "own", train=10, test=5)
    assert opened_after_download(tmp_path / "own") == 10


# image folders


def test_image_folders_are_sorted_classes_of_rgb_images(tmp_path):
    make_image_folder(tmp_path, classes=3, train=4, val=2)
    train, val = (open_dataset("folder", split, folder=tmp_path) for split in ("train", "val"))
    assert (len(train), len(val)) == (12, 6)
    assert train.classes == val.classes == ("class_000", "class_001", "class_002")
    assert [val[index][1] for index in range(6)] == [0, 0, 1, 1, 2, 2]
    image, _ = train[5]
    expected = np.array(Image.open(tmp_path / "train" / "class_001" / "1.png"))
    assert image.permute(1, 2, 0).tolist() == expected.tolist()


@pytest.mark.parametrize("mode", ["L", "RGBA", "P", "CMYK", "1"])
def test_pictures_of_any_mode_come_as_rgb(tmp_path, mode):
    make_image_folder(tmp_path)
    suffix = "jpg" if mode == "CMYK" else "png"
    Image.new(mode, (9, 7)).save(tmp_path / "train" / "class_000" / f"+.{suffix}")
    image, _ = open_dataset("folder", "train", folder=tmp_path)[0]
    assert (image.dtype, image.shape) == (torch.uint8, (3, 7, 9))


def test_the_fingerprint_changes_with_names_labels_and_sizes(tmp_path):
    def fingerprint() -> str:
        return open_dataset("folder", "train", folder=tmp_path).fingerprint

    make_image_folder(tmp_path)
    seen = {fingerprint()}
    assert fingerprint() in seen
    first = tmp_path / "train" / "class_000" / "0.png"
    for change in (
        lambda: first.write_bytes(first.read_bytes() + b"\0"),
        lambda: first.rename(first.with_name("9.png")),
        lambda: first.with_name("9.png").rename(tmp_path / "train" / "class_001" / "9.png"),
    ):
        change()
        assert fingerprint() not in seen
        seen.add(fingerprint())


def broken_folder(tmp_path: Path, what: str) -> Path:
    folder = make_image_folder(tmp_path / "data")
    if what == "absent":
        return tmp_path / "nowhere"
    if what == "file":
        (tmp_path / "file").write_text("")
        return tmp_path / "file"
    if what == "flat":
        return folder / "train"
    if what == "empty":
        (tmp_path / "empty").mkdir()
        return tmp_path / "empty"
    if what == "no classes":
        shutil.rmtree(folder / "val")
        (folder / "val").mkdir()
        (folder / "val" / "readme.txt").write_text("")
    if what == "empty class":
        for path in (folder / "val" / "class_001").iterdir():
            path.rename(path.with_suffix(".txt"))
    if what == "more":
        (folder / "val" / "class_999").mkdir()
    if what == "fewer":
        shutil.rmtree(folder / "val" / "class_001")
    return folder


@pytest.mark.parametrize(
    ("what", "text"),
    [
        ("absent", "no such folder of data"),
        ("file", "this is a file"),
        ("flat", "no folder val/ here; found class_000/, class_001/, class_002/"),
        ("empty", "no folder val/ here; found nothing"),
        ("no classes", "no class folders here; found readme.txt"),
        ("empty class", r"1 of 3 classes have no images: class_001 \(class_001 holds 0.txt, 1.txt"),
        ("more", "1 classes are not in train, so their labels would be out of range: class_999"),
        ("fewer", "1 classes of train are not here: class_001"),
    ],
)
def test_a_folder_without_the_layout_says_what_was_found_and_what_was_expected(tmp_path, what, text):
    with pytest.raises(FinetDeployError, match=text) as caught:
        open_dataset("folder", "val", folder=broken_folder(tmp_path, what))
    assert caught.value.do
    if what in ("flat", "empty", "no classes"):
        assert "DIR/train/<class>/<image>" in caught.value.do


def test_val_alone_can_be_opened_and_imagenet_must_have_1000_classes(tmp_path):
    make_image_folder(tmp_path)
    shutil.rmtree(tmp_path / "train")
    assert len(open_dataset("folder", "val", folder=tmp_path).classes) == 3
    with pytest.raises(FinetDeployError, match="imagenet has 1000 classes, this folder 3"):
        open_dataset("imagenet", "val", folder=tmp_path)
    assert dataset_info("imagenet").num_classes == 1000


def bad_files() -> dict[str, bytes]:
    stream = io.BytesIO()
    Image.new("RGB", (300, 300), (9, 8, 7)).save(stream, "PNG")
    bomb = io.BytesIO()
    Image.new("1", (9000, 9000)).save(bomb, "PNG")
    foreign = io.BytesIO()
    Image.new("L", (9, 9)).save(
        foreign, "GIF"
    )  # Pillow reads it, and would start a program for some other formats
    return {
        "empty": b"",
        "another format": foreign.getvalue(),
        "no picture": b"<html>404</html>",
        "truncated": stream.getvalue()[:200],
        "a bomb": bomb.getvalue(),
        "postscript": b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 10 10\n%%EndComments\nshowpage\n",
    }


@pytest.mark.parametrize("kind", bad_files())
def test_a_corrupt_image_is_named(tmp_path, kind):
    make_image_folder(tmp_path)
    path = tmp_path / "train" / "class_001" / "1.png"
    path.write_bytes(bad_files()[kind])
    dataset = open_dataset("folder", "train", folder=tmp_path)
    with pytest.raises(
        BadImage, match=r"cannot read image: .*class_001/1.png\]; .*--skip-bad-images"
    ) as caught:
        dataset[5]
    assert caught.value.name == str(path)
    again = pickle.loads(pickle.dumps(caught.value))  # noqa: S301 - as it comes from a worker
    assert (str(again), again.name) == (str(caught.value), str(path))


def test_an_image_that_went_missing_is_named(tmp_path):
    make_image_folder(tmp_path)
    dataset = open_dataset("folder", "train", folder=tmp_path)
    (tmp_path / "train" / "class_002" / "3.png").unlink()
    with pytest.raises(BadImage, match="No such file.*class_002/3.png"):
        dataset[11]
    assert len(dataset.fingerprint) == 16
