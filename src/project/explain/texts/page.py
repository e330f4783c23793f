"""HTML page of texts with highlighted words."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from project.explain.texts.overlays import Part
from project.files import write_text

PAGE = """<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>Explanations of texts</title>
<style>
:root { --background: #fff; --text: #1b2330; --muted: #5a6575; --border: #e2e6ec;
  --for: 217 118 26; --against: 31 79 191; }
@media (prefers-color-scheme: dark) {
  :root { --background: #12161d; --text: #e4e8ee; --muted: #9aa5b4; --border: #2b323d; }
}
body { max-width: 60rem; margin: 0 auto; padding: 40px 24px; font: 16px/1.6 system-ui, sans-serif; color: var(--text);
  background: var(--background); }
article { border-top: 1px solid var(--border); padding: 20px 0; }
h1 { font-size: 1.6rem; } h2 { font-size: 1.2rem; margin-top: 48px; }
h3 { font-size: .85rem; font-weight: normal; color: var(--muted); margin: 12px 0 4px; }
article p { margin: 0; white-space: pre-wrap; overflow-wrap: anywhere; }
mark { color: inherit; background: rgb(var(--for) / var(--share)); border-radius: 3px; }
mark.against { background: rgb(var(--against) / var(--share)); }
.muted { color: var(--muted); }
table { border-collapse: collapse; } td, th { text-align: left; vertical-align: top; padding: 4px 24px 4px 0; }
</style>
</head>
<body>
<h1>Explanations of texts</h1>
<p class="muted">{{ about }}
Colors: words that <mark style="--share: .6">increase</mark> and that
<mark class="against" style="--share: .6">decrease</mark> the output, relative to the strongest word of the text.</p>
{% for text in texts %}
<article>
<b>{{ text.title }}</b>
{% for heading, parts in text.rows %}
<h3>{{ heading }}</h3>
<p dir="auto">{% for word, value in parts %}{% if value %}<mark{% if value < 0 %} class="against"{% endif %} \
style="--share: {{ '%.2f' % (0.75 * value | abs) }}" title="{{ '%+.2f' % value }}">{{ word }}</mark>{% else %}\
{{ word }}{% endif %}{% endfor %}</p>
{% endfor %}
</article>
{% endfor %}
{% if table %}
<h2>Words with the most evidence</h2>
<table>
<tr><th>{{ output_column }}</th><th>words</th></tr>
{% for name, words in table %}<tr><th scope="row">{{ name }}</th><td>{{ words | join(", ") }}</td></tr>
{% endfor %}
</table>
{% endif %}
</body>
</html>
"""


@dataclass(frozen=True)
class ExplainedText:
    """A text of the page: a title, and a heading with the highlighted words for each method and output."""

    title: str
    rows: list[tuple[str, list[Part]]]


def write_page(file: Path, texts: Sequence[ExplainedText], **context: Any) -> None:
    """Write the page.

    Args:
        file: The file to write.
        texts: The texts.
        context: `about`, a sentence; `table`, the words of each output; and `output_column`, its heading.
    """
    from jinja2 import Environment

    page = Environment(autoescape=True, trim_blocks=True, lstrip_blocks=True).from_string(PAGE)
    write_text(file, page.render(texts=texts, **context))
