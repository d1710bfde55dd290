"""The overview page and the RO-Crate of a synthetic profile: what they say, and what a browser makes of the page."""

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

import pandas as pd
import pytest
from matplotlib import pyplot as plt
from recorded import write_profile
from rocrate.rocrate import ROCrate

from sbkit import claims, page
from sbkit.notebook import FORMATS, Run
from sbkit.records import Record

ROOT = Path(__file__).parents[1]
BROWSER = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)

CLAIMS = pd.DataFrame(
    {
        "claim": ["<script>alert('x')</script> & \"quotes\" | `code`", "Faster", "Slower", "Unknown"],
        "paper": [1.26, 1.75, 0.5, 2.0],
        "ours": ["1.30 ± 0.05 (n=5)", "1.1 (n=1)", "2.0", "-"],
        "verdict": ["contradicted", "reproduced", "contradicted", "missing record"],
        "notebook": ["08_speed", "08_speed", "03_accuracy", "no_such"],
    }
)


def small_figure(table):
    figure, axis = plt.subplots(figsize=(3.25, 1.5), layout="constrained")
    axis.plot(range(len(table)), range(len(table)), label="100 % of #1 'a' & \"b\" < c")
    axis.legend()
    return figure


@pytest.fixture(scope="session")
def drawn_profile(tmp_path_factory):
    """The run of a profile with records of every kind, all of whose figures and tables are drawn, as small ones."""
    root = tmp_path_factory.mktemp("repository")
    shutil.copytree(ROOT / "notebooks", root / "notebooks", ignore=shutil.ignore_patterns(".*"))
    write_profile(root / "results" / "quick")
    run = Run("quick", name="", save=True, configs=(), root=root)
    table = pd.DataFrame({"label": ["binary", "signed_binary"], "a_rather_long_column_name": [1.5, 2.25]})
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("SBKIT_ROOT", str(root))
        patch.setattr("IPython.display.display", lambda shown: None)
        # One rendering serves every figure: what is drawn matters to no test here.
        run.figure(small_figure, table, "small")
        for name in run.drawn():
            folder, stem = name.split("/")
            if folder == "figures":
                for suffix in FORMATS["figures"]:
                    shutil.copy(run.folder / f"figures/small.{suffix}", run.folder / f"{name}.{suffix}")
            else:
                run.table(CLAIMS if name in page.HEADLINES else pd.concat([table] * 8, axis=1), stem)
    for path in run.folder.glob("figures/small.*"):
        path.unlink()
    return run


@pytest.fixture(autouse=True)
def at_root(drawn_profile, monkeypatch):
    monkeypatch.setenv("SBKIT_ROOT", str(drawn_profile.root))


@pytest.fixture(scope="session")
def written(drawn_profile):
    """The profile's folder with index.html and ro-crate-metadata.json, and executed notebooks that they point at."""
    folder = drawn_profile.folder
    (folder / "executed").mkdir()
    for path in (drawn_profile.root / "notebooks").glob("*.ipynb"):
        shutil.copy(path, folder / "executed")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("SBKIT_ROOT", str(drawn_profile.root))
        page.main(["--profile", "quick"])
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
    assert {entry["notebook"] for entry in catalogue.values()} > {"00_overview", "03_accuracy", "08_speed"}
    for name, entry in catalogue.items():
        assert re.sub(r"\s+", " ", entry["caption"]).split("`")[0].strip() in found.text, name
    figures = [name for name in catalogue if name.startswith("figures/")]
    assert len(found.all("img", "src")) == len(figures) > 10
    assert found.text.count("Where this comes from") == len(catalogue)
    assert "Missing:" not in found.text
    assert "ResNet-8, 8,000 images, 3 epochs" in found.text and "smaller than the paper’s own scale" in found.text
    assert "make reproduce PROFILE=quick" in found.text


def test_page_needs_nothing_but_itself_and_its_links_lead_somewhere(written):
    text = (written / "index.html").read_text()
    found = Reader(text)
    assert {tag for tag, _ in found.tags} & {"script", "iframe", "object", "embed"} == set()
    assert "url(" not in re.sub(r"src='[^']*'", "", text) and "@import" not in text
    assert all(source.startswith("data:image/svg+xml") for source in found.all("img", "src"))
    assert found.all("link", "href") == ["data:,"]
    anchors = {f"#{found['id']}" for _, found in found.tags if "id" in found}
    links = found.all("a", "href")
    assert len(links) > 50
    assert [link for link in links if link not in anchors and not (written / link).is_file()] == []


def test_claims_are_counted_by_verdict_from_the_best(written):
    found = Reader((written / "index.html").read_text())
    assert re.search(r"Verdicts 1 ● reproduced 2 × contradicted 1 \? missing record Paper and", found.text)
    classes = [attributes.get("class", "") for tag, attributes in found.tags if tag == "span"]
    assert classes.count("verdict v-contradicted") == 1 + 2 + 2  # in the summary, and in two tables
    assert "#08_speed" in found.all("a", "href") and "#no_such" not in found.all("a", "href")


def test_every_verdict_has_a_symbol_of_its_own():
    assert tuple(page.SYMBOLS) == claims.VERDICTS
    assert len(set(page.SYMBOLS.values())) == len(claims.VERDICTS)


def test_text_is_escaped(written):
    text = (written / "index.html").read_text()
    assert "<script" not in text
    cell = "&lt;script&gt;alert(&#39;x&#39;)&lt;/script&gt; &amp; &#34;quotes&#34; | <code>code</code>"
    assert f'data-label="claim">{cell}</td>' in text


def test_missing_files_are_named(copied):
    for name in ("figures/latency.svg", "tables/speedup.md", "tables/claims.md"):
        (copied.folder / name).unlink()
    text = Reader(page.page(copied)).text
    for name in ("figures/latency", "tables/speedup", "tables/claims"):
        assert f"Missing: {name} is not in results/quick." in text
    assert text.count("Missing:") == 3


def test_what_a_profile_cannot_draw_is_not_missing(copied):
    shutil.rmtree(copied.folder / "records" / "bench")
    text = page.page(copied)
    assert "figures/pareto" in text and "figures/latency" not in text and "Missing:" not in text


def test_a_profile_without_records_is_refused(copied):
    shutil.rmtree(copied.folder / "records")
    for write in (page.page, page.crate):
        with pytest.raises(FileNotFoundError, match=r"quick/records holds no finished record; `make reproduce`"):
            write(copied)
    with pytest.raises(ValueError, match="profile = 'quik'; allowed: interactive, smoke, quick"):
        page.main(["--profile", "quik"])


def test_reference_links_to_committed_notebooks(copied):
    reference = copied.root / "results" / "reference" / "quick"
    shutil.copytree(copied.folder, reference)
    run = Run("reference/quick", name="", save=True, configs=(), root=copied.root)
    links = Reader(page.page(run)).all("a", "href")
    assert "../../../notebooks/08_speed.ipynb" in links
    assert [link for link in links if not link.startswith("#") and not (reference / link).is_file()] == []
    assert "executed/" not in page.crate(run)


def test_same_results_give_the_same_bytes(written, copied):
    environment = os.environ | {"PYTHONHASHSEED": "1", "SBKIT_ROOT": str(copied.root), "PYTHONPATH": str(ROOT)}
    files = ("index.html", "ro-crate-metadata.json")
    for name in files:
        (copied.folder / name).write_text("old")
    subprocess.run([sys.executable, "-m", "sbkit.page", "--profile", "quick"], check=True, env=environment)
    for name in files:
        assert (copied.folder / name).read_bytes() == (written / name).read_bytes(), name


# Where a figure comes from


def record(kind="train", config=None, **provenance):
    return Record(kind, "x", config or {}, {}, {}, {"status": "ok"} | provenance)


def test_only_finished_records_count(copied):
    path = next(copied.folder.glob("records/train/*.json"))
    content = json.loads(path.read_text())
    content["provenance"]["status"] = "running"
    path.write_text(json.dumps(content))
    before = len(list(copied.folder.glob("records/*/*.json")))
    found = page.finished_records(copied.folder)
    assert len(found) == before - 1 and f"train/{path.stem}" not in found
    assert list(found) == sorted(found)


@pytest.mark.parametrize(
    ("reads", "needs", "rows", "expected"),
    [
        (["train"], {}, [], ["train/a-s0", "train/a-s1", "train/b-s0"]),
        (["weights"], {}, [{"name": "a-s1"}], ["train/a-s1"]),
        (["train"], {}, [{"label": "a"}, {"label": "b"}], ["train/a-s0", "train/a-s1", "train/b-s0"]),
        (["train"], {}, [{"label": "a", "seed": "1"}], ["train/a-s1"]),
        (["bench"], {}, [{"label": "table binary"}], ["bench/density", "bench/layers"]),
        (["bench"], {"study": "density"}, [], ["bench/density"]),
        (["train", "bench"], {}, [{"name": "layers", "label": "b"}], ["bench/layers"]),
        ([], {}, [], []),
    ],
)
def test_records_behind_a_figure(reads, needs, rows, expected):
    found = {
        "bench/density": record("bench", {"study": "density"}),
        "bench/layers": record("bench", {"study": "layers"}),
        "train/a-s0": record(),
        "train/a-s1": record(),
        "train/b-s0": record(),
    }
    assert list(page.rests_on({"reads": reads, "needs": needs}, rows, found)) == expected


def test_provenance_is_summed_up():
    one = {"commit": "0123456789abcdef", "dirty": False, "cpu": "A", "cores": 2, "threads": 1, "isa": "avx2"}
    found = {
        "train/a-s0": record(**one, started_utc="2026-02-03T04:05:06Z", data_label="digits"),
        "train/a-s1": record(**one, started_utc="2026-01-02T03:04:05Z", data_label="digits"),
        "bench/layers": record("bench", **one | {"dirty": True, "cpu": "B", "threads": 2, "device": "cuda"}),
    }
    assert page.provenance(found) == {
        "Records": "a s0 s1, layers",
        "Measured": "2026-01-02 to 2026-02-03",
        "Commits": "0123456789 (2 records); 0123456789 with uncommitted changes (1 record)",
        "Machine": "A, 2 cores, avx2 (2 records); B, 2 cores, avx2, cuda (1 record)",
        "Threads": "1 (2 records); 2 (1 record)",
        "Data": "digits",
    }
    assert page.provenance({}) == {}


def test_units_stand_behind_the_papers_values():
    lines = ("A caption.", "", "| a | paper | unit |", "|:--|--:|:--|", r"| x\|y | 1.26 | times |", "| z | – | - |", "")
    table = page.parse_table("\n".join(lines))
    assert table == (["a", "paper", "unit"], ["left", "right", "left"], [["x|y", "1.26", "times"], ["z", "–", "-"]])
    assert page.with_units(table) == (["a", "paper"], ["left", "right"], [["x|y", "1.26 times"], ["z", "–"]])
    other = page.Table(["a"], ["left"], [["b"]])
    assert page.with_units(other) == other


def test_image_is_the_drawing_itself(written):
    path = written / "figures" / "latency.svg"
    image = page.inline_svg(path.read_text())
    assert image.width == round(1.3 * 3.25 * 96)
    assert not {"'", "#", "&", "\n"} & set(image.source)
    inlined = ElementTree.fromstring(unquote(image.source.partition(",")[2]))
    texts = {element.text for element in inlined.iter("{http://www.w3.org/2000/svg}text")}
    points = []
    for tree in (inlined, ElementTree.parse(path)):
        paths = " ".join(element.get("d") for element in tree.iter("{http://www.w3.org/2000/svg}path"))
        points.append([float(number) for number in re.findall(r"-?\d+\.?\d*", paths)])
    assert points[0] == pytest.approx(points[1], abs=0.01) and len(points[0]) > 50
    assert "100 % of #1 'a' & \"b\" < c" in texts
    assert "font-family: 'DejaVu Sans', Verdana, Arial, sans-serif" in unquote(image.source)


# The RO-Crate


def test_crate_is_read_back(written, drawn_profile):
    crate = ROCrate(written)
    files = {entity.id for entity in crate.data_entities}
    on_disk = {path.relative_to(written).as_posix() for path in written.rglob("*") if path.is_file()}
    assert files == on_disk - {"ro-crate-metadata.json"}
    assert crate.root_dataset["license"].id == "https://spdx.org/licenses/MIT"
    assert crate.root_dataset["datePublished"] == "2026-01-01T00:00:00Z"
    assert "Fashion-MNIST" in crate.description and "quick" in crate.name

    actions = {action["instrument"].id[1:]: action for action in crate.get_by_type("CreateAction")}
    assert set(actions) == {"02_train", "07_bench"} | {entry["notebook"] for entry in drawn_profile.drawn().values()}
    trained = {file.id for file in actions["02_train"]["result"]}
    assert {"records/train/binary-s0.json", "weights/binary-s0.npz"} < trained and "figures/pareto.svg" not in trained
    assert {file.id for file in actions["08_speed"]["object"]} == {f for f in files if f.startswith("records/bench")}
    assert "figures/latency.pdf" in {file.id for file in actions["08_speed"]["result"]}
    caption = drawn_profile.drawn()["figures/pareto"]["caption"]
    assert crate.dereference("figures/pareto.svg")["description"] == caption
    assert actions["08_speed"]["instrument"]["description"] == "Speed on this CPU"


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
    page.querySelectorAll("details").forEach(details => details.open = true);
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
            assert frame["images"] == text.count("<img") > 10, name
            assert frame["empty"] == 0 and frame["wide"] == [], name
            assert frame["rows"] > 100, name
        assert found["phone"]["height"] > found["desk"]["height"]

    def test_what_does_not_fit_or_load_would_be_seen(self, written, tmp_path):
        text = (written / "index.html").read_text()
        broken = text.replace("</footer>", '<div style="width:2000px">wide</div><img src="none.png"></footer>')
        for name, frame in measured(broken, tmp_path).items():
            assert frame["empty"] == 1 and any(line.startswith("DIV ") for line in frame["wide"]), name
