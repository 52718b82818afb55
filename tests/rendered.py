"""How a renderer shows what we wrote."""

from __future__ import annotations

from html.parser import HTMLParser

from markdown_it import MarkdownIt

render_html = MarkdownIt("commonmark").enable(["table", "strikethrough"]).render


def plain(text: str) -> str:
    """As a reader sees it: one line, and nothing that cannot be printed."""
    return " ".join("".join(char if char.isprintable() else " " for char in text).split())


class Words(HTMLParser):
    """The text of a page and the tags in it."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.text = ""
        self.tags: list[str] = []
        self.feed(html)

    def handle_data(self, data: str) -> None:
        self.text += data

    def handle_starttag(self, tag: str, attrs: object) -> None:
        self.tags.append(tag)
