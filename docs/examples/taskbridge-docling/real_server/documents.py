"""Writes real documents, with the libraries that docling-serve itself needs: ``python documents.py FOLDER``.

Each says that revenue rose by 4 percent, and contains the number 42. ``corrupt.docx`` is the first half of a document.
"""

import sys
from pathlib import Path

from docx import Document
from openpyxl import Workbook
from pptx import Presentation
from pptx.util import Inches

TITLE = "Quarterly report"
SENTENCE = "Revenue rose by 4 percent."
ROWS = (("Region", "Sum"), ("North", "42"))


def write(folder: Path) -> None:
    """Write all documents."""
    table = "".join(f"<tr><td>{a}</td><td>{b}</td></tr>" for a, b in ROWS)
    page = f"<!doctype html><html><body><h1>{TITLE}</h1><p>{SENTENCE}</p><table>{table}</table></body></html>"
    (folder / "page.html").write_text(page, encoding="utf-8")
    rows = "\n".join(f"| {a} | {b} |" for a, b in (ROWS[0], ("---", "---"), ROWS[1]))
    (folder / "notes.md").write_text(f"# {TITLE}\n\n{SENTENCE}\n\n{rows}\n", encoding="utf-8")
    (folder / "sums.csv").write_text(f"Text,Sum\n{SENTENCE},42\n", encoding="utf-8")
    (folder / "empty.md").write_text("\n", encoding="utf-8")
    _write_docx(folder / "report.docx")
    _write_pptx(folder / "slides.pptx")
    _write_xlsx(folder / "sheet.xlsx")
    whole = (folder / "report.docx").read_bytes()
    (folder / "corrupt.docx").write_bytes(whole[: len(whole) // 2])


def _write_docx(path: Path) -> None:
    document = Document()
    document.add_heading(TITLE, 1)
    document.add_paragraph(SENTENCE)
    table = document.add_table(rows=2, cols=2)
    for row, texts in zip(table.rows, ROWS, strict=True):
        for cell, text in zip(row.cells, texts, strict=True):
            cell.text = text
    document.save(str(path))


def _write_pptx(path: Path) -> None:
    presentation = Presentation()
    slide = presentation.slides.add_slide(presentation.slide_layouts[5])
    slide.shapes.title.text = f"{TITLE}: {SENTENCE}"
    table = slide.shapes.add_table(2, 2, Inches(1), Inches(2), Inches(4), Inches(1)).table
    for row, texts in enumerate(ROWS):
        for column, text in enumerate(texts):
            table.cell(row, column).text = text
    presentation.save(str(path))


def _write_xlsx(path: Path) -> None:
    workbook = Workbook()
    sheet = workbook.active
    for row in ((TITLE, SENTENCE), *ROWS):
        sheet.append(row)
    workbook.save(path)


if __name__ == "__main__":
    write(Path(sys.argv[1]))
