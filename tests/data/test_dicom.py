"""DICOM photographs: the right pixels come out, and nothing else."""

import io
import logging
import threading
import tracemalloc
import warnings
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from PIL import Image
from pydicom.dataset import Dataset
from pydicom.encaps import encapsulate
from pydicom.pixels.processing import apply_windowing, convert_color_space
from pydicom.uid import (
    CTImageStorage,
    DeflatedExplicitVRLittleEndian,
    ExplicitVRBigEndian,
    ExplicitVRLittleEndian,
    HTJ2KLossless,
    ImplicitVRLittleEndian,
    JPEG2000Lossless,
    JPEGBaseline8Bit,
    JPEGExtended12Bit,
    JPEGLosslessSV1,
    JPEGLSLossless,
    MediaStorageDirectoryStorage,
    RLELossless,
    SecondaryCaptureImageStorage,
    VLPhotographicImageStorage,
)

from common.classes import HAM10000_CLASSES
from common.data.cases import LesionImage
from common.data.check import check_folder
from common.data.preparation import decode, prepare_cases
from common.data.readers import read_lesion_images
from common.errors import DataError, DataUnfit, DataUnreadable
from tests.data.dicom_files import (
    MARKERS,
    NAME,
    UID_ROOT,
    as_file,
    dicom,
    jpeg_2000_dicom,
    jpeg_dicom,
    picture,
    rle_dicom,
    with_adobe,
    with_component_names,
    with_transfer_syntax,
    without_jfif,
)

COLOUR = picture()
GREY = COLOUR[..., 1].copy()
GREY_16 = (GREY.astype(np.uint16) * 200 + COLOUR[..., 0]).astype(np.uint16)
NATIVE = [
    ImplicitVRLittleEndian,
    ExplicitVRLittleEndian,
    ExplicitVRBigEndian,
    DeflatedExplicitVRLittleEndian,
]


def image_of(content: bytes, location: str = "clinic/x.dcm") -> LesionImage:
    return LesionImage("x", "L", "nv", "", location, lambda: content)


def shown(content: bytes) -> NDArray[np.uint8]:
    return np.asarray(decode(image_of(content)))


def grey(levels: NDArray[Any]) -> NDArray[np.uint8]:
    return np.repeat(levels[..., None], 3, axis=2).astype(np.uint8)


@pytest.fixture(autouse=True)
def nothing_leaks(caplog: pytest.LogCaptureFixture, recwarn: pytest.WarningsRecorder) -> Any:
    """No test of this module may make the reader log or warn anything, whatever it reads."""
    caplog.set_level(logging.DEBUG)
    yield
    said = [record.getMessage() for record in caplog.records if record.name != "asyncio"]
    assert not said and not [str(w.message) for w in recwarn]


# Pixels


@pytest.mark.parametrize("syntax", NATIVE)
@pytest.mark.parametrize("planar", [0, 1])
def test_colours_are_those_of_the_png(syntax: str, planar: int) -> None:
    pixels = COLOUR.transpose(2, 0, 1).reshape(COLOUR.shape) if planar else COLOUR
    content = dicom(pixels, syntax, PlanarConfiguration=planar)
    np.testing.assert_array_equal(shown(content), shown(as_file(COLOUR, "PNG")))
    prepared = [
        prepare_cases([image_of(c)], HAM10000_CLASSES).images
        for c in (content, as_file(COLOUR, "PNG"))
    ]
    np.testing.assert_array_equal(*prepared)


def test_an_odd_number_of_bytes_is_padded() -> None:
    odd = picture(33, 35)
    for syntax in NATIVE:
        np.testing.assert_array_equal(shown(dicom(odd, syntax)), odd)


@pytest.mark.parametrize("array", [COLOUR, GREY, GREY_16], ids=["colour", "grey", "16 bits"])
def test_rle_is_the_png(array: NDArray[Any]) -> None:
    np.testing.assert_array_equal(shown(rle_dicom(array)), shown(as_file(array, "PNG")))


@pytest.mark.parametrize("array", [COLOUR, GREY, GREY_16], ids=["colour", "grey", "16 bits"])
def test_jpeg_2000_is_the_png(array: NDArray[Any]) -> None:
    bits = array.dtype.itemsize * 8
    layout: dict[str, Any] = {"BitsAllocated": bits, "BitsStored": bits, "HighBit": bits - 1}
    if array.ndim == 3:
        layout["PhotometricInterpretation"] = "YBR_RCT"
    else:
        layout |= {"SamplesPerPixel": 1, "PhotometricInterpretation": "MONOCHROME2"}
    content = jpeg_2000_dicom(array, **layout)
    np.testing.assert_array_equal(shown(content), shown(as_file(array, "PNG")))


def test_a_jpeg_is_what_the_same_jpeg_is_outside() -> None:
    for frame in (as_file(COLOUR, "JPEG"), as_file(COLOUR, "JPEG", subsampling=0, quality=95)):
        np.testing.assert_array_equal(shown(jpeg_dicom(frame)), shown(frame))
    frame = as_file(GREY, "JPEG")
    like = {"SamplesPerPixel": 1, "PhotometricInterpretation": "MONOCHROME2"}
    np.testing.assert_array_equal(shown(jpeg_dicom(frame, **like)), shown(frame))


def _jpeg_of_rgb() -> bytes:
    """A JPEG whose components are red, green and blue, not their differences."""
    stream = io.BytesIO()
    Image.frombytes("YCbCr", COLOUR.shape[1::-1], COLOUR.tobytes()).save(
        stream, "JPEG", quality=95, subsampling=0
    )
    return stream.getvalue()


@pytest.mark.parametrize(
    ("frame", "colours"),
    [
        (lambda: as_file(COLOUR, "JPEG", quality=95), "YBR_FULL_422"),
        (lambda: without_jfif(as_file(COLOUR, "JPEG", quality=95)), "YBR_FULL_422"),
        (lambda: with_adobe(as_file(COLOUR, "JPEG", quality=95), 1), "YBR_FULL_422"),
        (lambda: with_adobe(as_file(COLOUR, "JPEG", quality=95), 1), "RGB"),
        (lambda: with_adobe(_jpeg_of_rgb(), 0), "RGB"),
        (lambda: with_adobe(_jpeg_of_rgb(), 0), "YBR_FULL_422"),
        (lambda: without_jfif(_jpeg_of_rgb()), "RGB"),
        (lambda: with_component_names(without_jfif(_jpeg_of_rgb()), b"RGB"), "RGB"),
        (lambda: with_component_names(without_jfif(_jpeg_of_rgb()), b"RGB"), "YBR_FULL_422"),
    ],
)
def test_a_jpeg_says_itself_how_its_colours_are_stored(
    frame: Callable[[], bytes], colours: str
) -> None:
    found = shown(jpeg_dicom(frame(), PhotometricInterpretation=colours)).astype(int)
    assert np.abs(found - COLOUR).mean() < 4  # 60 and more where colours are taken for others


def test_luma_and_colour_differences() -> None:
    ybr = convert_color_space(COLOUR, "RGB", "YBR_FULL")
    found = shown(dicom(ybr, PhotometricInterpretation="YBR_FULL"))
    assert np.abs(found.astype(int) - COLOUR).max() <= 2
    halved = ybr.reshape(48, 32, 2, 3)
    packed = np.concatenate([halved[..., 0], halved[:, :, 0, 1:]], axis=2).copy()  # Y Y Cb Cr
    content = dicom(packed.tobytes(), PhotometricInterpretation="YBR_FULL_422")
    shared = halved.copy()
    shared[:, :, 1, 1:] = shared[:, :, 0, 1:]
    expected = convert_color_space(shared.reshape(COLOUR.shape), "YBR_FULL", "RGB")
    assert np.abs(shown(content).astype(int) - expected).max() <= 1


@pytest.mark.parametrize("syntax", NATIVE)
@pytest.mark.parametrize("bits", [8, 16])
@pytest.mark.parametrize("indices", [np.uint8, np.uint16])
def test_palettes(syntax: str, bits: int, indices: type[np.generic]) -> None:
    first, entries = 20, 300 if indices is np.uint16 else 200
    table = np.random.default_rng(1).integers(0, 256, (entries, 3)).astype(np.uint8)
    values = np.arange(48 * 64).reshape(48, 64) % (entries + 50 if entries > 256 else 256)
    order = "<" if syntax != ExplicitVRBigEndian else ">"
    attributes: dict[str, Any] = {"PhotometricInterpretation": "PALETTE COLOR"}
    for i, name in enumerate(("Red", "Green", "Blue")):
        column = table[:, i]
        wide = (column.astype(np.uint16) * 257).astype(f"{order}u2")
        content = column.tobytes() if bits == 8 else wide.tobytes()
        attributes[f"{name}PaletteColorLookupTableDescriptor"] = [entries, first, bits]
        attributes[f"{name}PaletteColorLookupTableData"] = content
    content = dicom(values.astype(indices), syntax, **attributes)
    np.testing.assert_array_equal(shown(content), table[np.clip(values - first, 0, entries - 1)])


def test_grey_without_a_window_shows_the_whole_range() -> None:
    np.testing.assert_array_equal(shown(dicom(GREY)), grey(GREY))
    inverse = dicom(GREY, PhotometricInterpretation="MONOCHROME1")
    np.testing.assert_array_equal(shown(inverse), grey(255 - GREY))
    np.testing.assert_array_equal(shown(dicom(GREY_16)), shown(as_file(GREY_16, "PNG")))
    twelve = (GREY_16 >> 4).astype(np.uint16)
    dark = dicom(twelve // 2, BitsStored=12, HighBit=11)
    np.testing.assert_array_equal(shown(dark), grey(twelve.astype(int) // 2 * 255 // 4095))
    signed = (GREY_16.astype(np.int32) - 32768).astype(np.int16)
    np.testing.assert_array_equal(shown(dicom(signed)), shown(dicom(GREY_16)))
    np.testing.assert_array_equal(
        shown(dicom(signed, ExplicitVRBigEndian)), shown(dicom(GREY_16, RescaleSlope=None))
    )


def test_bits_that_do_not_count_are_left_out() -> None:
    twelve = (GREY_16 >> 4).astype(np.uint16)
    marked = twelve | np.uint16(0xA000)
    layout = {"BitsStored": 12, "HighBit": 11}
    np.testing.assert_array_equal(shown(dicom(marked, **layout)), shown(dicom(twelve, **layout)))


def test_colours_of_16_bits_are_scaled() -> None:
    wide = COLOUR.astype(np.uint16) * 257
    np.testing.assert_array_equal(shown(dicom(wide)), COLOUR)


@pytest.mark.parametrize("function", ["", "LINEAR", "LINEAR_EXACT", "SIGMOID"])
@pytest.mark.parametrize("kind", ["MONOCHROME2", "MONOCHROME1"])
@pytest.mark.parametrize("slope", [1.0, 0.5, -2.0])
def test_windows_are_those_of_the_standard(function: str, kind: str, slope: float) -> None:
    values = (GREY_16.astype(np.int32) - 20000).astype(np.int16)
    scaled = values.astype(np.float64) * slope + 100
    centre, width = float(scaled.mean()), float(scaled.std()) * 2
    attributes: dict[str, Any] = {
        "WindowCenter": [round(centre, 3), 5],
        "WindowWidth": [round(width, 3), 7],
        "RescaleSlope": slope,
        "RescaleIntercept": 100,
        "PhotometricInterpretation": kind,
    }
    if function:
        attributes["VOILUTFunction"] = function
    half = round(width, 3) / 2
    shift = 0.5 if function in ("", "LINEAR") else 0
    if function == "SIGMOID":
        share = 1 / (1 + np.exp(-2 * (scaled - round(centre, 3)) / half))
    else:
        share = (scaled - round(centre, 3) + shift) / (2 * half - 2 * shift) + 0.5
    levels = np.clip(share, 0, 1) * 255
    expected = grey(255 - levels if kind == "MONOCHROME1" else levels)
    found = shown(dicom(values, **attributes))
    assert np.abs(found.astype(int) - expected).max() <= 1
    assert np.ptp(found) > 200


def test_a_window_of_the_full_range_changes_nothing() -> None:
    content = dicom(GREY, WindowCenter=128, WindowWidth=256)
    np.testing.assert_array_equal(shown(content), grey(GREY))
    plain = Dataset()
    plain.PhotometricInterpretation, plain.BitsStored, plain.PixelRepresentation = (
        "MONOCHROME2",
        8,
        0,
    )
    plain.WindowCenter, plain.WindowWidth = 128, 256
    np.testing.assert_allclose(apply_windowing(GREY, plain), GREY, atol=1e-9)


def test_empty_windows_and_slopes_are_as_if_absent() -> None:
    empty = dict.fromkeys(("WindowCenter", "WindowWidth", "RescaleSlope", "RescaleIntercept"))
    np.testing.assert_array_equal(shown(dicom(GREY, NumberOfFrames=None, **empty)), grey(GREY))


# What is refused


def refusal(content: bytes) -> str:
    """The line with which a file is refused."""
    with pytest.raises((DataUnfit, DataUnreadable)) as caught:
        decode(image_of(content))
    error: BaseException | None = caught.value
    text = str(error)
    assert text.startswith("clinic/x.dcm ") and "\n" not in text
    while error is not None:
        assert not any(marker in f"{error!r} {error.args}" for marker in MARKERS)
        error = error.__cause__ or error.__context__
    return text


@pytest.mark.parametrize(
    ("syntax", "words"),
    [
        (JPEGLSLossless, ("JPEG-LS Lossless", "dcmdjpls")),
        (JPEGLosslessSV1, ("JPEG Lossless", "dcmdjpeg")),
        (JPEGExtended12Bit, ("JPEG Extended", "dcmdjpeg")),
        (HTJ2KLossless, ("High-Throughput JPEG 2000", "export it uncompressed")),
        (f"{UID_ROOT}.9", ("(unknown)",)),
    ],
)
def test_transfer_syntaxes_that_cannot_be_decoded(syntax: str, words: tuple[str, ...]) -> None:
    text = refusal(dicom(encapsulate([b"x" * 100]), syntax))
    assert all(word in text for word in words)


def test_what_is_no_photograph() -> None:
    assert "CT Image Storage" in refusal(dicom(GREY, SOPClassUID=CTImageStorage))
    assert "(unknown)" in refusal(dicom(GREY, SOPClassUID=f"{UID_ROOT}.8"))
    assert "(unknown)" in refusal(dicom(GREY, SOPClassUID="Qmarker"))
    vl = dicom(COLOUR, SOPClassUID=VLPhotographicImageStorage)
    np.testing.assert_array_equal(shown(vl), COLOUR)


def test_burned_in_text() -> None:
    assert "burned into" in refusal(dicom(COLOUR, BurnedInAnnotation="YES"))
    np.testing.assert_array_equal(shown(dicom(COLOUR, BurnedInAnnotation="NO")), COLOUR)


def test_a_secondary_capture_must_say_that_it_bears_no_text() -> None:
    capture = {"SOPClassUID": SecondaryCaptureImageStorage}
    for said in ({}, {"BurnedInAnnotation": ""}, {"BurnedInAnnotation": "Qmarker"}):
        assert "Secondary Capture" in refusal(dicom(COLOUR, **capture, **said))
    assert "burned into" in refusal(dicom(COLOUR, **capture, BurnedInAnnotation="YES"))
    free = dicom(COLOUR, **capture, BurnedInAnnotation="NO")
    np.testing.assert_array_equal(shown(free), COLOUR)


def test_several_frames() -> None:
    assert "several frames" in refusal(dicom(COLOUR.tobytes() * 2, NumberOfFrames=2))
    np.testing.assert_array_equal(shown(dicom(COLOUR, NumberOfFrames=1)), COLOUR)


def test_too_many_pixels_are_refused_before_they_are_decoded(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("common.data.preparation.MOST_PIXELS", 48 * 64)
    shown(dicom(COLOUR))
    assert "more than 3072 pixels" in refusal(dicom(COLOUR, NumberOfFrames=2))
    monkeypatch.setattr("common.data.preparation.MOST_PIXELS", 48 * 64 - 1)
    frame = as_file(picture(480, 640), "JPEG")
    for content in (dicom(COLOUR), jpeg_dicom(b"no jpeg"), rle_dicom(COLOUR)):
        assert "pixels over all its frames" in refusal(content)
    monkeypatch.setattr("common.data.preparation.MOST_PIXELS", 48 * 64)
    assert "damaged" in refusal(jpeg_dicom(frame)), "larger inside than it says"
    large = jpeg_2000_dicom(picture(480, 640), Rows=48, Columns=64)
    assert "damaged" in refusal(large)


def test_a_deflated_file_is_not_inflated_further_than_its_picture() -> None:
    small = dicom(COLOUR, DeflatedExplicitVRLittleEndian)
    bomb = dicom(bytes(300_000_000), DeflatedExplicitVRLittleEndian)
    assert len(bomb) < 1_000_000
    shown(small)
    tracemalloc.start()
    try:
        refusal(bomb)
        assert tracemalloc.get_traced_memory()[1] < 100_000_000
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize(
    ("attributes", "words"),
    [
        ({"PhotometricInterpretation": "YBR_PARTIAL_420"}, "YBR_PARTIAL_420"),
        ({"PhotometricInterpretation": "Qmarker"}, "(unknown)"),
        ({"PhotometricInterpretation": "MONOCHROME2"}, "MONOCHROME2"),
        ({"BitsAllocated": 32, "BitsStored": 32, "HighBit": 31}, "8 bits"),
        ({"HighBit": 3}, "8 bits"),
        ({"PixelRepresentation": 1}, "colours of a depth"),
        ({"Rows": 47}, "damaged"),
        ({"Rows": 0}, "damaged"),
        ({"without": ("Rows",)}, "damaged"),
        ({"without": ("SOPClassUID",)}, "damaged"),
    ],
)
def test_pictures_that_cannot_be_shown(attributes: dict[str, Any], words: str) -> None:
    assert words in refusal(dicom(COLOUR, **attributes)).replace("interpretation (unknown)", words)


def test_lookup_tables() -> None:
    table = Dataset()
    table.LUTDescriptor, table.LUTData = [256, 0, 8], bytes(256)
    assert "lookup table" in refusal(dicom(GREY, VOILUTSequence=[table]))
    assert "plain palette" in refusal(dicom(GREY, PhotometricInterpretation="PALETTE COLOR"))


def test_pixels_of_another_transfer_syntax() -> None:
    for syntax in (JPEGBaseline8Bit, RLELossless, DeflatedExplicitVRLittleEndian):
        assert "damaged" in refusal(with_transfer_syntax(dicom(COLOUR), syntax))
    compressed = with_transfer_syntax(rle_dicom(COLOUR), ImplicitVRLittleEndian)
    refusal(compressed)
    assert "damaged" in refusal(dicom(encapsulate([b"no rle"]), RLELossless))


# Nothing else comes out


def _samples() -> list[bytes]:
    frame = as_file(COLOUR, "JPEG")
    return [
        *(dicom(COLOUR, syntax) for syntax in NATIVE),
        dicom(GREY_16, WindowCenter=20000, WindowWidth=30000),
        rle_dicom(COLOUR),
        jpeg_dicom(frame),
        jpeg_2000_dicom(COLOUR, PhotometricInterpretation="YBR_RCT"),
    ]


SAMPLES = _samples()


def read_or_refuse(content: bytes) -> None:
    """Whatever is read, nothing is said but one line without a marker."""
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        try:
            decode(image_of(content))
        except (DataUnfit, DataUnreadable) as error:
            assert "\n" not in str(error)
            assert not any(marker in repr(error) for marker in MARKERS)
            assert isinstance(error.__context__, OSError | None)
    assert not said


@pytest.mark.parametrize("sample", range(len(SAMPLES)))
def test_files_cut_short(sample: int) -> None:
    content = SAMPLES[sample]
    for length in {*range(132, min(len(content), 1200), 7), *range(132, len(content) - 20, 701)}:
        refusal(content[:length])


@settings(max_examples=150, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    st.sampled_from(SAMPLES),
    st.lists(st.tuples(st.floats(0, 1), st.binary(min_size=1, max_size=4)), min_size=1, max_size=5),
    st.booleans(),
)
def test_damaged_files(content: bytes, damage: list[tuple[float, bytes]], early: bool) -> None:
    changed = bytearray(content)
    for place, new in damage:
        at = 132 + int(place * (min(len(content), 1200) if early else len(content)) - 132)
        changed[max(at, 132) : at + len(new)] = new
    read_or_refuse(bytes(changed))


@settings(max_examples=100, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.binary(max_size=300))
def test_anything_after_the_magic(body: bytes) -> None:
    read_or_refuse(b"\0" * 128 + b"DICM" + body)


def test_values_of_the_wrong_kind_are_not_quoted() -> None:
    """What pydicom warns about, logs and raises with the value in its text."""
    for keyword in ("Rows", "BitsStored", "PixelRepresentation", "SamplesPerPixel"):
        content = dicom(COLOUR)
        tag = {"Rows": b"\x28\0\x10\0US", "BitsStored": b"\x28\0\x01\x01US"}.get(
            keyword, b"\x28\0\x02\0US" if keyword == "SamplesPerPixel" else b"\x28\0\x03\x01US"
        )
        at = content.index(tag)
        wrong = content[:at] + tag[:4] + b"LO\x08\0Qmarker " + content[at + 10 :]
        refusal(wrong)
    for attributes in (
        {"SpecificCharacterSet": "Qmarker"},
        {"VOILUTFunction": NAME, "WindowCenter": 1, "WindowWidth": 2},
    ):
        read_or_refuse(dicom(GREY, **attributes))
    for keywords in (("NumberOfFrames",), ("WindowCenter", "WindowWidth"), ("RescaleSlope",)):
        written = dict.fromkeys(keywords, "11111111")
        content = dicom(GREY, **{"RescaleIntercept": 1, **written})
        assert content.count(b"11111111") == len(keywords)
        assert "damaged" in refusal(content.replace(b"11111111", b"Qmarker "))


def test_the_cache_holds_pixels_only(tmp_path: Path) -> None:
    cases = prepare_cases([image_of(c) for c in SAMPLES], HAM10000_CLASSES, cache=tmp_path)
    assert all(marker.encode() in SAMPLES[0] for marker in ("Qmarker", "19570314", "987654321"))
    for file in tmp_path.rglob("*"):
        content = file.name.encode() + file.read_bytes()
        assert not any(marker.encode() in content for marker in MARKERS)
    again = prepare_cases([image_of(c) for c in SAMPLES], HAM10000_CLASSES, cache=tmp_path)
    np.testing.assert_array_equal(again.images, cases.images)
    with np.load(next(tmp_path.iterdir())) as archive:
        assert archive.files == ["images"]


def test_many_threads_and_settings_as_before() -> None:
    from pydicom import config

    filters, level = list(warnings.filters), logging.getLogger("pydicom").level
    invalid = dicom(COLOUR, SpecificCharacterSet="Qmarker")
    start = threading.Barrier(4)

    def work(content: bytes) -> bool:
        start.wait()
        return bool((shown(content) == COLOUR).all())

    with ThreadPoolExecutor(4) as pool:
        assert all(pool.map(work, [invalid, dicom(COLOUR), rle_dicom(COLOUR), invalid] * 3))
    assert list(warnings.filters) == filters
    assert logging.getLogger("pydicom").level == level
    assert config.settings.reading_validation_mode == config.WARN


# Folders


def test_a_folder_of_dicom_files(tmp_path: Path) -> None:
    first, second = dicom(COLOUR), rle_dicom(picture(seed=1))
    third, directory = (
        dicom(picture(seed=2)),
        dicom(COLOUR, SOPClassUID=MediaStorageDirectoryStorage),
    )
    for name, content in {
        "nv/a.dcm": first,
        "nv/IM000001": second,
        "nv/DICOMDIR": directory,
        "nv/notes": b"no image",
        "mel/1.2.840.7": third,
        "mel/b.DICOM": dicom(picture(seed=3)),
        "mel/c.png": as_file(picture(seed=4), "PNG"),
    }.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(content)
    images = read_lesion_images(tmp_path, HAM10000_CLASSES)
    names = ["mel/1.2.840.7", "mel/b.DICOM", "mel/c.png", "nv/IM000001", "nv/a.dcm"]
    assert [image.image_id for image in images] == names
    assert all(image.lesion_id == image.image_id for image in images)
    np.testing.assert_array_equal(np.asarray(decode(images[4])), COLOUR)
    report = check_folder(tmp_path, HAM10000_CLASSES)
    assert report.problems == [] and report.images == 5
    assert not any(marker in str(report.as_json()) for marker in MARKERS)


def test_a_table_names_dicom_files(tmp_path: Path) -> None:
    (tmp_path / "deep").mkdir()
    for name in ("a.dcm", "deep/b.dcm", "deep/IM7", "deep/1.2.3"):
        (tmp_path / name).write_bytes(dicom(picture(seed=len(name))))
    rows = ["a.dcm,nv,L1", "b,mel,L2", "IM7,nv,L3", "deep/1.2.3,mel,L4"]
    (tmp_path / "list.csv").write_text("\n".join(["image,dx,lesion_id", *rows]) + "\n")
    images = read_lesion_images(tmp_path, HAM10000_CLASSES)
    assert {i.location.split("/", 1)[1] for i in images} == {
        "a.dcm", "deep/b.dcm", "deep/IM7", "deep/1.2.3",
    }  # fmt: skip
    assert len(prepare_cases(images, HAM10000_CLASSES)) == 4


def test_the_check_names_what_is_refused(tmp_path: Path) -> None:
    for name, content in {
        "nv/a.dcm": dicom(COLOUR),
        "nv/b.dcm": dicom(COLOUR, BurnedInAnnotation="YES"),
        "mel/c.dcm": dicom(GREY, SOPClassUID=CTImageStorage),
        "mel/d.dcm": jpeg_dicom(as_file(COLOUR, "JPEG"))[:1200],
        "mel/e.dcm": b"no dicom",
    }.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(content)
    report = check_folder(tmp_path, HAM10000_CLASSES)
    assert report.unreadable == ["mel/c.dcm", "mel/d.dcm", "mel/e.dcm", "nv/b.dcm"]
    text = "\n".join(report.problems)
    for words in ("burned into", "CT Image Storage", "no complete picture", "not an image"):
        assert words in text
    assert not any(marker in text for marker in MARKERS)


def test_a_damaged_jpeg_2000_is_refused() -> None:
    content = SAMPLES[-1]
    assert JPEG2000Lossless.encode() in content
    with pytest.raises(DataError):
        decode(image_of(content[: len(content) // 2]))
