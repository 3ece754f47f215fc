"""How values show themselves in a notebook, and the notebooks of the examples."""

from __future__ import annotations

import base64
import re
import subprocess
import sys
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pytest

import nasdsl
from nasdsl import notebook
from nasdsl.search.results import Trials
from nasdsl.spaces import Filled

EXAMPLES = Path(__file__).parents[1] / "examples"
SPACE = """decoder <s> {
  input c3, c4
  fpn(width=16, norm=none) { output p3 = ?(conv_1x1 | conv_3x3)(c3), p4 = ?(conv_1x1 | skip)(c4) }
  head(width=16, norm=none) { conv_1x1 }
  predict fcos(centerness=cls)
}
""".replace("<s>", "s")


def pictures(html: str) -> list[ElementTree.Element]:
    return [ElementTree.fromstring(base64.b64decode(data)) for data in re.findall(r"data:image/svg\+xml;base64,([^\"]+)", html)]


def texts(picture: ElementTree.Element) -> str:
    return " ".join("".join(element.itertext()) for element in picture.iter() if element.tag.endswith("text"))


def test_a_decoder_is_its_picture_and_its_cost() -> None:
    decoder = nasdsl.load("zoo:fcos")
    html = notebook.decoder_html(decoder)
    (picture,) = pictures(html)
    assert {"m3", "cls_logits"} <= set(texts(picture).split())
    cost = decoder.cost()
    assert decoder.digest[:12] in html
    assert f"{cost.total.macs / 1e9:.0f} G" in html
    assert re.findall(r"<td[^>]*>(\w+)</td>", html)[::1][:1] == ["backbone"]


def test_a_decoder_without_graphviz_is_its_text(monkeypatch: pytest.MonkeyPatch) -> None:
    from nasdsl.backends import diagrams

    def refuse(*_: Any) -> bytes:
        raise diagrams.RenderError("svg needs <Graphviz>")

    monkeypatch.setattr(diagrams, "render_folding", refuse)
    html = notebook.decoder_html(nasdsl.load("zoo:fcos"))
    assert "decoder fcos {" in html
    assert "svg needs &lt;Graphviz&gt;" in html


def test_a_space_is_its_decisions() -> None:
    html = notebook.space_html(nasdsl.loads_space(SPACE))
    assert "2 decisions, 4 decoders" in html
    assert "conv_1x1 | conv_3x3" in html
    assert "?(conv_1x1 | skip)(c4)" in html


def test_a_difference_is_a_picture() -> None:
    before = nasdsl.load("zoo:fcos")
    after = nasdsl.loads(before.source.text.replace("p3 = conv_3x3(m3)", "p3 = dconv_3x3(m3)"))
    (picture,) = pictures(notebook.Difference(before, after)._repr_html_())
    assert "changed" in texts(picture)


@pytest.fixture(scope="module")
def trials() -> Trials:
    space = nasdsl.loads_space(SPACE)

    def evaluate(text: str) -> float:
        return nasdsl.loads(text).cost().fpn.params / 1e4

    found: Trials = nasdsl.search(space, evaluate, strategy="random", trials=12, seed=0, quiet=True)
    return found


def test_trials_are_a_table_charts_and_the_best_decoder(trials: Trials) -> None:
    html = notebook.trials_html(trials)
    assert "12 trials" in html
    assert trials.best is not None
    rows = re.findall(r"<tr>(.*?)</tr>", html)
    best = re.findall(r"<td[^>]*>([^<]*)</td>", rows[1])
    assert (best[0], best[4]) == (str(trials.best.number), " ".join(map(str, trials.best.indices)))
    drawn = pictures(html)
    assert any("trial" in texts(picture) for picture in drawn)
    assert "conv_3x3(c3)" in texts(drawn[-1])


def test_a_trial_is_its_figures_and_its_picture(trials: Trials) -> None:
    html = notebook.trial_html(trials[0])
    assert trials[0].verdict in html
    assert len(pictures(html)) == 1


def test_a_trial_that_does_not_check_says_why() -> None:
    broken = nasdsl.search.Trial(3, Filled("decoder d { <b> }", ()), None, "rejected")
    html = notebook.trial_html(broken)
    assert "NAS" in html
    assert "&lt;b&gt;" in html
    assert "<b>" not in html


def test_trials_without_a_result() -> None:
    assert "0 trials" in notebook.trials_html(Trials((), {}))


def test_types_of_the_formatters_exist() -> None:
    """They are named, not imported, so that nothing but this tells when one has moved."""
    from importlib import import_module

    for module, name in notebook.FORMATTERS:
        assert getattr(import_module(module), name).__module__ == module


def test_importing_nasdsl_in_a_notebook_registers_them_and_imports_nothing_else() -> None:
    code = (
        "import sys, types\n"
        "asked = []\n"
        "formatter = types.SimpleNamespace(for_type_by_name=lambda *given: asked.append(given))\n"
        "shell = types.SimpleNamespace(display_formatter=types.SimpleNamespace(formatters={'text/html': formatter}))\n"
        "sys.modules['IPython'] = types.SimpleNamespace(get_ipython=lambda: shell)\n"
        "import nasdsl, nasdsl.notebook as notebook\n"
        "assert {given[:2] for given in asked} == set(notebook.FORMATTERS), asked\n"
        "assert not {'torch', 'numpy', 'lark', 'altair', 'nasdsl.decoder', 'nasdsl.search'} & set(sys.modules)\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60)


@pytest.mark.long
@pytest.mark.parametrize("path", sorted(EXAMPLES.glob("*.ipynb")), ids=lambda path: path.stem)
def test_the_notebooks_of_the_examples_run(path: Path, tmp_path: Path) -> None:
    """As a whole, in a kernel; a cell that shows something shows the same kinds of things as in the file."""
    import nbformat
    from nbclient import NotebookClient

    shown = nbformat.read(path, as_version=4)
    ran = NotebookClient(
        nbformat.read(path, as_version=4), timeout=600, kernel_name="python3", resources={"metadata": {"path": str(tmp_path)}}
    ).execute()
    kinds = [[sorted(out.get("data", {})) for out in cell.get("outputs", [])] for cell in shown.cells]
    assert [[sorted(out.get("data", {})) for out in cell.get("outputs", [])] for cell in ran.cells] == kinds
    assert any(kinds)
