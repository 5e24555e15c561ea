"""How Sphinx makes pages of docs/: ``sphinx-build -W -b html docs docs/_build``.

The pages are Markdown that reads well where it lies. What only a site needs is added while it is built: the tables of
contents, which follow the links of index.md section by section, and the pages of the root directory.
"""

from __future__ import annotations

import builtins
import os
import re
from pathlib import Path

from docutils import nodes
from pygments.lexers.special import TextLexer
from sphinx.addnodes import pending_xref
from sphinx.application import Sphinx

import agentao_trio

project = "agentao_trio"
author = "The agentao_trio authors"
copyright = author
version = release = agentao_trio.__version__

extensions = ["myst_parser", "sphinx.ext.autodoc", "sphinx.ext.viewcode"]
source_suffix = {".md": "markdown"}
exclude_patterns = ["_build", "examples"]
templates_path: list[str] = []

myst_enable_extensions = ["colon_fence"]
myst_heading_anchors = 3

autodoc_member_order = "bysource"
autodoc_typehints = "signature"
autodoc_typehints_format = "short"
autodoc_class_signature = "mixed"
autodoc_default_options = {"members": True, "undoc-members": False, "show-inheritance": True}
python_maximum_signature_line_length = 88

html_theme = "furo"
html_title = "agentao_trio"
html_theme_options = {
    "navigation_with_keys": True,
    "light_css_variables": {"code-font-size": "var(--font-size--small--3)"},
}
html_static_path = ["style"]
html_css_files = ["pages.css"]
html_copy_source = False
html_show_sphinx = False

_DOCS = Path(__file__).resolve().parent
_ROOT = _DOCS.parent
#: Pages from outside of docs/, and what they are called here.
_OUTSIDE = {
    "changelog": _ROOT / "CHANGELOG.md",
    "contributing": _ROOT / "CONTRIBUTING.md",
    "benchmarks": _ROOT / "benchmarks" / "README.md",
}


def _contents(index: str) -> str:
    """A hidden table of contents for each section of the index: the pages that it links to."""
    tables = []
    for section in re.split(r"^## ", index, flags=re.MULTILINE)[1:]:
        caption, _, body = section.partition("\n")
        pages = re.findall(r"\]\(([\w/.-]+)\.md\)", body)
        tables.append("\n".join(["```{toctree}", ":hidden:", f":caption: {caption}", "", *pages, "```"]))
    return "\n\n".join(tables)


def _link(match: re.Match[str], origin: Path, page: Path) -> str:
    """A link as it is from ``page``, which lies elsewhere than ``origin`` where the text came from outside."""
    text, path, anchor = match.groups()
    target = (origin / path).resolve()
    for name, outside in _OUTSIDE.items():
        if target == outside:
            target = _DOCS / f"{name}.md"
    if target.is_dir() or (target.suffix == ".md" and not target.is_relative_to(_DOCS)):
        return text  # a site has no place for it
    return f"[{text}]({os.path.relpath(target, page.parent)}{anchor or ''})"


def _complete(app: Sphinx, name: str, source: list[str]) -> None:
    page = _DOCS / f"{name}.md"
    origin = _OUTSIDE.get(name, page)
    text = origin.read_text(encoding="utf-8") if name in _OUTSIDE else source[0]
    blocks = re.split(r"(^```.*?^```)", text, flags=re.MULTILINE | re.DOTALL)
    blocks[::2] = [
        re.sub(r"(?<!!)\[([^\]]*)\]\(([^):#]+)(#[^)]*)?\)", lambda found: _link(found, origin.parent, page), prose)
        for prose in blocks[::2]
    ]
    text = "".join(blocks)
    source[0] = f"{text}\n{_contents(text)}" if name == "index" else text


def _skipped(app: Sphinx, what: str, name: str, member: object, skip: bool, options: object) -> bool | None:
    """Describe what is re-exported where it lives, unless that module is private."""
    if what == "module":
        home = getattr(member, "__module__", None)
        here = app.env.current_document.autodoc_module
        if isinstance(home, str) and home != here and not home.rpartition(".")[2].startswith("_"):
            return True
    return None


def _headings(app: Sphinx, what: str, name: str, member: object, options: object, lines: list[str]) -> None:
    """The sections within a docstring are none of the page's."""
    for index in range(len(lines) - 1):
        if lines[index] and set(lines[index + 1]) == {"-"}:
            lines[index : index + 2] = [f".. rubric:: {lines[index]}", ""]


def _builtin_types(app: Sphinx, doctree: nodes.document) -> None:
    """Have no mention of ``bytes`` or ``type`` lead to an attribute that is called so."""
    for reference in list(doctree.findall(pending_xref)):
        if reference.get("refdomain") == "py" and hasattr(builtins, reference["reftarget"]):
            reference.replace_self(reference.children)


def setup(app: Sphinx) -> None:
    """Sphinx calls this."""
    app.connect("source-read", _complete)
    app.connect("autodoc-skip-member", _skipped)
    app.connect("autodoc-process-docstring", _headings)
    app.connect("doctree-read", _builtin_types)
    app.add_lexer("csv", TextLexer)
