"""The PDFs as printers take them: every font embedded, and none of Type 3, which many publishers refuse."""

import re

import pytest

from ddcore import figures

RECORDED = [key for key in figures.entries() if figures.load(key)]


def fonts(content: bytes) -> tuple[set[bytes], int, int]:
    """The subtypes of its fonts, its font descriptors, and the embedded font files; matplotlib packs no objects into streams."""
    assert b"/ObjStm" not in content
    subtypes = {
        found
        for one in re.findall(rb"<<[^<>]*/Type /Font\b[^<>]*", content)
        for found in re.findall(rb"/Subtype /(\w+)", one)
    }
    return (
        subtypes,
        len(re.findall(rb"/Type /FontDescriptor\b", content)),
        len(re.findall(rb"/FontFile[23]? \d", content)),
    )


@pytest.mark.parametrize("key", RECORDED)
def test_its_fonts_are_embedded_truetype(key):
    subtypes, described, embedded = fonts((figures.FOLDER / f"{key}.pdf").read_bytes())
    assert subtypes
    assert subtypes <= {b"Type0", b"CIDFontType2", b"TrueType"}
    assert embedded == described > 0


def test_a_font_of_type_3_would_be_seen():
    """As matplotlib writes them by its own default."""
    import io

    import matplotlib
    from matplotlib.figure import Figure

    figure, written = Figure(), io.BytesIO()
    figure.text(0.5, 0.5, "a")
    with matplotlib.rc_context({"pdf.fonttype": 3}):
        figure.savefig(written, format="pdf")
    assert b"Type3" in fonts(written.getvalue())[0]
