"""The page and the RO-Crate of a profile made of committed records: what they say, and what a browser makes of it."""

import html
import json
import os
import re
import shutil
import subprocess
import sys
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote
from xml.etree import ElementTree

import nbformat
import pandas as pd
import pytest
from matplotlib import pyplot as plt
from rocrate.rocrate import ROCrate

from sbkit.evidence import claims
from sbkit.notebook import FORMATS, Run
from sbkit.page import __main__ as command
from sbkit.page import crate, items, verdicts
from sbkit.page import html as page
from sbkit.records import Record

ROOT = Path(__file__).parents[1]
BROWSER = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)

CLAIMS = pd.DataFrame(
    {
        "id": ["C1", "C2", "C3", "C4"],
        "claim": ["<script>alert('x')</script> & \"quotes\" | `code`", "Faster", "Slower", "Unknown"],
        "ours": ["1.30 ± 0.05 (n=5)", "1.1 (n=1)", "2.0", "-"],
        "verdict": ["opposite", "agrees", "weaker", "no record"],
    }
)


def small_figure(table):
    figure, axis = plt.subplots(figsize=(3.25, 1.5), layout="constrained")
    axis.plot(range(len(table)), range(len(table)), label="100 % of #1 'a' & \"b\" < c")
    axis.legend()
    return figure


@pytest.fixture(scope="session")
def drawn_profile(tmp_path_factory):
    """The profile quick with its committed records, all of whose figures and tables are drawn, as small ones."""
    root = tmp_path_factory.mktemp("repository")
    shutil.copytree(ROOT / "notebooks", root / "notebooks", ignore=shutil.ignore_patterns(".*"))
    for kind in ("records", "weights"):
        shutil.copytree(ROOT / "results" / "reference" / "quick" / kind, root / "results" / "quick" / kind)
    run = Run("quick", name="", save=True, configs=(), root=root)
    table = pd.DataFrame({"label": ["binary", "signed binary"], "a_rather_long_column_name": [1.5, 2.25]})
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("SBKIT_ROOT", str(root))
        patch.setattr("IPython.display.display", lambda *shown: None)
        # One rendering serves every figure: what is drawn matters to no test here.
        run.figure(small_figure, table, "small")
        for name in run.drawn():
            folder, stem = name.split("/")
            if folder == "figures":
                for suffix in FORMATS["figures"]:
                    shutil.copy(run.folder / f"figures/small.{suffix}", run.folder / f"{name}.{suffix}")
            else:
                run.table(CLAIMS if stem.startswith("claims") else table, stem)
    for path in run.folder.glob("figures/small.*"):
        path.unlink()
    return run


@pytest.fixture(autouse=True)
def at_root(drawn_profile, monkeypatch):
    monkeypatch.setenv("SBKIT_ROOT", str(drawn_profile.root))


@pytest.fixture(scope="session")
def written(drawn_profile):
    """The profile's folder with page and crate, and executed notebooks that the page points at."""
    folder = drawn_profile.folder
    (folder / "executed").mkdir()
    for notebook in {entry["notebook"] for entry in drawn_profile.drawn().values()}:
        cells = [nbformat.v4.new_markdown_cell(f"# {notebook}", id="title")]
        nbformat.write(nbformat.v4.new_notebook(cells=cells), folder / "executed" / f"{notebook}.ipynb")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("SBKIT_ROOT", str(drawn_profile.root))
        command.main(["--profile", "quick"])
    return folder


@pytest.fixture
def copied(written, tmp_path):
    """A run whose folder a test may change."""
    root = shutil.copytree(written.parents[1], tmp_path / "copy")
    return Run("quick", name="", save=True, configs=(), root=root)


class Reader(HTMLParser):
    """Collects a page's tags with their attributes, and its text without markup."""

    def __init__(self, text):
        super().__init__()
        self.tags, self.texts = [], []
        self.feed(text)
        self.text = re.sub(r"\s+", " ", " ".join(self.texts))

    def handle_starttag(self, tag, attributes):
        self.tags.append((tag, dict(attributes)))

    def handle_data(self, data):
        self.texts.append(data)

    def all(self, tag, attribute):
        return [found[attribute] for name, found in self.tags if name == tag and attribute in found]


def test_page_shows_everything_that_the_catalogue_expects(written, drawn_profile):
    found = Reader((written / "index.html").read_text())
    catalogue = drawn_profile.drawn()
    for name, entry in catalogue.items():
        assert re.sub(r"\s+", " ", entry["caption"]).split("`")[0].strip() in found.text, name
    figures = [name for name in catalogue if name.startswith("figures/")]
    front = [name for name in page.FRONT if name in catalogue]
    assert len(front) == 3 and len(found.all("img", "src")) == len(figures) + len(front)
    assert "Missing:" not in found.text
    assert "smaller than the paper’s own scale" in found.text and "make reproduce PROFILE=quick" in found.text


def test_page_needs_nothing_but_itself_and_its_links_lead_somewhere(written):
    text = (written / "index.html").read_text()
    found = Reader(text)
    assert {tag for tag, _ in found.tags} & {"script", "iframe", "object", "embed"} == set()
    assert "url(" not in re.sub(r"src='[^']*'", "", text) and "@import" not in text
    assert all(source.startswith("data:image/svg+xml") for source in found.all("img", "src"))
    links = found.all("a", "href")
    assert "executed/08_speed.html" in links
    assert [link for link in links if not link.startswith("#") and not (written / link).is_file()] == []


def test_everything_but_the_headline_is_folded_and_not_printed(written):
    text = (written / "index.html").read_text()
    assert text.index("<details") > text.index('id="headline"') and "<details open" not in text
    assert "details:not([open]), .screen { display: none; }" in text


def test_every_verdict_has_a_symbol_of_its_own(written):
    assert page.SYMBOLS.keys() == set(claims.VERDICTS)
    assert len(set(page.SYMBOLS.values())) == len(claims.VERDICTS)
    classes = Reader((written / "index.html").read_text()).all("span", "class")
    assert "verdict v-opposite" in classes and "verdict v-no-record" in classes


def test_text_is_escaped(written):
    text = (written / "index.html").read_text()
    assert "<script" not in text
    cell = "&lt;script&gt;alert(&#39;x&#39;)&lt;/script&gt; &amp; &#34;quotes&#34; | <code>code</code>"
    assert f'data-label="claim">{cell}</td>' in text


def test_missing_files_are_named(copied):
    (copied.folder / "figures" / "latency.svg").unlink()
    (copied.folder / "tables" / "claims_headline.md").unlink()
    text = Reader(page.page(copied)).text
    for name in ("figures/latency", "tables/claims_headline"):
        assert f"Missing: {name} is not in results/quick." in text


def test_what_a_profile_cannot_draw_is_not_missing(copied):
    shutil.rmtree(copied.folder / "records" / "bench")
    text = page.page(copied)
    assert "figures/pareto" in text and "figures/latency" not in text and "Missing:" not in text


def test_a_profile_without_records_is_refused(copied):
    shutil.rmtree(copied.folder / "records")
    for write in (page.page, crate.crate):
        with pytest.raises(FileNotFoundError, match=r"quick/records holds no finished record; `make reproduce`"):
            write(copied)
    with pytest.raises(ValueError, match="profile = 'quik'; allowed: interactive, mine, smoke"):
        command.main(["--profile", "quik"])


def test_same_results_give_the_same_bytes(written, copied):
    environment = os.environ | {"PYTHONHASHSEED": "1", "SBKIT_ROOT": str(copied.root), "PYTHONPATH": str(ROOT)}
    files = ("index.html", "ro-crate-metadata.json")
    for name in files:
        (copied.folder / name).write_text("old")
    subprocess.run([sys.executable, "-m", "sbkit.page", "--profile", "quick"], check=True, env=environment)
    for name in files:
        assert (copied.folder / name).read_bytes() == (written / name).read_bytes(), name


def test_yours_stand_beside_ours(copied, capsys, monkeypatch):
    assert verdicts.compared(copied).empty  # nothing is committed in this repository
    committed = copied.root / "results" / "reference" / "quick" / "tables"
    committed.mkdir(parents=True)
    CLAIMS.assign(verdict=["opposite", "agrees", "agrees", "no record"]).to_csv(committed / "claims.csv", index=False)
    found = verdicts.compared(copied)
    assert found[~found["same"]][["id", "verdict", "their_verdict"]].values.tolist() == [["C3", "weaker", "agrees"]]
    monkeypatch.setenv("SBKIT_ROOT", str(copied.root))
    command.main(["--verdicts", "quick"])
    assert capsys.readouterr().out.splitlines() == [
        "verdicts  3 of 4 equal the committed ones",
        "          C3: weaker, 2.0; committed: agrees, 2.0",
    ]
    assert "3 of 4 verdicts equal those of the committed records" in Reader(page.page(copied)).text


def record(kind="train", **provenance):
    return Record(kind, "x", {}, {}, {}, {"status": "ok"} | provenance)


def test_only_finished_records_count(copied):
    path = next(copied.folder.glob("records/train/*.json"))
    content = json.loads(path.read_text())
    content["provenance"]["status"] = "running"
    path.write_text(json.dumps(content))
    before = len(list(copied.folder.glob("records/*/*.json")))
    found = items.finished_records(copied.folder)
    assert len(found) == before - 1 and f"train/{path.stem}" not in found


def test_provenance_is_summed_up():
    one = {"commit": "0123456789abcdef", "dirty": False, "cpu": "A", "cores": 2, "threads": 1, "isa": "avx2"}
    found = {
        "train/a-s0": record(**one, started_utc="2026-02-03T04:05:06Z", data_label="digits"),
        "train/a-s1": record(**one, started_utc="2026-01-02T03:04:05Z", data_label="digits"),
        "bench/layers": record("bench", **one | {"dirty": True, "cpu": "B", "threads": 2, "device": "cuda"}),
    }
    assert items.provenance(found) == {
        "Measured": "2026-01-02 to 2026-02-03",
        "Commits": "0123456789 (2 records); 0123456789 with uncommitted changes (1 record)",
        "Machine": "A, 2 cores, avx2 (2 records); B, 2 cores, avx2, cuda (1 record)",
        "Threads": "1 (2 records); 2 (1 record)",
        "Data": "digits",
    }


def test_image_is_the_drawing_itself(written):
    path = written / "figures" / "latency.svg"
    image = items.inline_svg(path.read_text())
    assert not {"'", "#", "&", "\n"} & set(image.source)
    inlined = ElementTree.fromstring(unquote(image.source.partition(",")[2]))
    texts = {element.text for element in inlined.iter("{http://www.w3.org/2000/svg}text")}
    points = []
    for tree in (inlined, ElementTree.parse(path)):
        paths = " ".join(element.get("d") for element in tree.iter("{http://www.w3.org/2000/svg}path"))
        points.append([float(number) for number in re.findall(r"-?\d+\.?\d*", paths)])
    assert points[0] == pytest.approx(points[1], abs=0.01) and len(points[0]) > 50
    assert "100 % of #1 'a' & \"b\" < c" in texts


def test_crate_is_read_back(written, drawn_profile):
    found = ROCrate(written)
    files = {entity.id for entity in found.data_entities}
    on_disk = {path.relative_to(written).as_posix() for path in written.rglob("*") if path.is_file()}
    assert files == on_disk - {"ro-crate-metadata.json"}
    assert found.root_dataset["license"].id == "https://spdx.org/licenses/MIT"
    actions = {action["instrument"].id[1:]: action for action in found.get_by_type("CreateAction")}
    assert set(actions) == {"02_train", "07_bench"} | {entry["notebook"] for entry in drawn_profile.drawn().values()}
    trained = {file.id for file in actions["02_train"]["result"]}
    assert {"records/train/binary-s0.json", "weights/binary-s0.npz"} < trained and "figures/pareto.svg" not in trained
    assert "figures/latency.pdf" in {file.id for file in actions["08_speed"]["result"]}


def test_what_jupyterlab_leaves_beside_notebooks_is_no_part_of_the_crate(written, copied):
    (copied.folder / "executed" / ".ipynb_checkpoints").mkdir()
    (copied.folder / "executed" / ".~00_overview.ipynb.lock").write_text("")
    assert crate.crate(copied) == crate.crate(Run("quick", name="", save=True, configs=(), root=written.parents[1]))


# In a browser


def chromium(url, folder, *options):
    """What headless Chromium prints to stdout and stderr on a page."""
    command = [BROWSER, "--headless", "--no-sandbox", "--disable-gpu", "--disable-background-networking"]
    command += ["--no-first-run", f"--user-data-dir={folder / 'browser'}", "--virtual-time-budget=20000", *options, url]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return done.stdout, done.stderr


# A frame per medium: what lies outside of the page's width, but for what scrolls there, and images without a size.
MEASURE = """<!DOCTYPE html><meta charset="utf-8"><body>%s<pre id="result"></pre><script>
addEventListener("load", () => {
  const result = {};
  for (const frame of document.querySelectorAll("iframe")) {
    const page = frame.contentDocument, width = page.documentElement.clientWidth;
    if (frame.name != "print") page.querySelectorAll("details").forEach(details => details.open = true);
    const boxes = frame.name == "print" ? "none" : ".plot, .scroll";
    const scrolls = element => element.closest(boxes) && !element.matches(boxes);
    const wide = [...page.body.querySelectorAll("*")].filter(element => {
      const box = element.getBoundingClientRect();
      return !scrolls(element) && box.width > 1 && (box.right > width + 0.5 || box.left < -0.5);
    });
    result[frame.name] = {
      width, images: page.images.length, empty: [...page.images].filter(image => image.naturalWidth == 0).length,
      wide: wide.map(element => `${element.tagName} ${element.className} ${element.textContent.slice(0, 60)}`),
      rows: page.querySelectorAll("td").length, height: page.documentElement.scrollHeight,
    };
  }
  document.querySelector("#result").textContent = JSON.stringify(result);
});
</script>"""
WIDTHS = {"phone": 360, "desk": 1200, "print": 718}  # CSS pixels; A4 less margins of 10 mm


def measured(text, folder):
    """How the page is laid out at each of WIDTHS."""
    frames = ""
    for name, width in WIDTHS.items():
        medium = text
        if name == "print":  # as if for the screen: a browser prints without telling how
            medium = text.replace("@media print", "@media all").replace("@media screen", "@media not all")
            assert medium.count("@media all") == medium.count("@media not all") == 1
        frames += f'<iframe name="{name}" width="{width}" height="800" srcdoc="{html.escape(medium)}"></iframe>'
    path = folder / "measure.html"
    path.write_text(MEASURE % frames)
    output, _ = chromium(path.as_uri(), folder, "--dump-dom", "--hide-scrollbars")
    return json.loads(html.unescape(re.search(r'<pre id="result">(.*?)</pre>', output, re.DOTALL)[1]))


@pytest.mark.skipif(not BROWSER, reason="no Chromium here")
class TestBrowser:
    def test_opens_without_a_complaint(self, written, tmp_path):
        broken = tmp_path / "broken.html"
        broken.write_text("<script>undefined_function()</script>")
        logged = ["--enable-logging=stderr", "--v=0", "--dump-dom"]
        for path, complaints in ((written / "index.html", 0), (broken, 1)):
            output, log = chromium(path.as_uri(), tmp_path, *logged)
            assert "</html>" in output
            assert log.count(":CONSOLE") == complaints, log

    def test_fits_a_phone_a_desk_and_paper(self, written, tmp_path):
        text = (written / "index.html").read_text()
        found = measured(text, tmp_path)
        assert {name: frame["width"] for name, frame in found.items()} == WIDTHS
        for name, frame in found.items():
            assert frame["images"] == text.count("<img"), name
            assert frame["empty"] == 0 and frame["wide"] == [], name
        assert found["phone"]["height"] > found["desk"]["height"]

    def test_what_does_not_fit_or_load_would_be_seen(self, written, tmp_path):
        text = (written / "index.html").read_text()
        broken = text.replace("</footer>", '<div style="width:2000px">wide</div><img src="none.png"></footer>')
        for name, frame in measured(broken, tmp_path).items():
            assert frame["empty"] == 1 and any(line.startswith("DIV ") for line in frame["wide"]), name
