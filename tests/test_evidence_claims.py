"""Claims: the verdict rule by rule, what is wrong with a claims.toml, and the committed records judged whole."""

import math
import re
from pathlib import Path

import pandas as pd
import pytest
from scipy.special import stdtrit

from sbkit.evidence import claims
from sbkit.evidence.gather import Evidence
from sbkit.evidence.paper import PAPER
from sbkit.evidence.stats import Measured

ROOT = Path(__file__).parents[1]
CLAIMS = ROOT / "notebooks" / "claims.toml"

FASTER = {"paper": "speedup_over_binary", "neutral": 1.0, "margin": 0.13}  # 1.26
FEWER = {"paper": "density", "neutral": 1.0, "margin": 0.04}  # 0.35
EQUAL = {"paper": "gap_at_equal_total", "kind": "as accurate", "margin": 1.0}
TOP1 = {"paper": "top1_final", "kind": "level", "better": "higher", "margin": 1.0}  # 66.2
ERRORS = TOP1 | {"better": "lower"}


@pytest.mark.parametrize(
    ("claim", "value", "half_width", "expected"),
    [
        (FASTER, 1.30, 0.05, "agrees"),
        (FASTER, 1.14, 0.05, "agrees"),
        (FASTER, 1.12, 0.05, "weaker"),  # beyond the margin, nearer to no effect
        (FASTER, 1.40, 0.05, "stronger"),  # beyond the margin, further from it
        (FASTER, 1.20, 0.25, "no effect measured"),
        (FASTER, 1.00, 0.00, "no effect measured"),
        (FASTER, 0.90, 0.05, "opposite"),
        (FASTER, 1.26, math.nan, "no record"),  # a single run
        (FEWER, 0.33, 0.02, "agrees"),
        (FEWER, 0.44, 0.02, "weaker"),
        (FEWER, 0.20, 0.02, "stronger"),
        (FEWER, 1.20, 0.02, "opposite"),
        (EQUAL, -0.2, 0.7, "agrees"),
        (EQUAL, 3.0, 0.7, "agrees"),  # one-sided: better is as accurate
        (EQUAL, -0.2, 0.9, "no effect measured"),
        (EQUAL, -3.0, 1.9, "opposite"),
        (TOP1, 66.0, 0.7, "agrees"),
        (TOP1, 66.0, 0.9, "no effect measured"),
        (TOP1, 68.0, 0.5, "stronger"),
        (TOP1, 64.0, 0.5, "weaker"),
        (ERRORS, 64.0, 0.5, "stronger"),
    ],
)
def test_verdict(claim, value, half_width, expected):
    assert claims.verdict(claim, Measured(value, half_width, 3)) == expected
    assert expected in claims.VERDICTS


def test_a_models_verdict_is_of_its_range():
    def word(*ends):
        return claims.verdict(FASTER, Measured(1.26, 0.0, 30, range=ends, of="assumptions"))

    assert word(1.05, 2.0) == "agrees" and word(0.9, 2.0) == "no effect measured"


@pytest.fixture(scope="module")
def listed():
    return claims.load_claims(CLAIMS)


@pytest.fixture(scope="module")
def judged(listed, committed):
    """The table of claims of a committed profile, on evidence that is read once."""
    return {name: claims.claims_table(listed, committed(name)._evidence) for name in ("review", "speed")}


@pytest.mark.parametrize("profile", ["review", "speed"])
def test_committed_tables_hold_the_numbers_of_the_committed_records(judged, profile):
    folder = ROOT / "results" / "reference" / profile / "tables"
    drawn = [pd.read_csv(path).set_index("id") for path in sorted(folder.glob("claims*.csv"))]
    before = next(table for table in drawn if "value" in table)["value"].dropna()
    ours = judged[profile].set_index("id")["value"]
    common = [name for name in ours.index if name in before.index and not name.startswith("C20")]
    assert len(common) > 20
    assert ours[common].tolist() == pytest.approx(before[common].tolist(), rel=1e-5)


def test_every_claim_of_the_paper_has_a_place(listed):
    restated = [name for claim in listed for name in claim.get("restates", ())]
    kinds = {kind: claims.load_statements(CLAIMS, kind) for kind in ("contradiction", "identity")}
    ids = [claim["id"] for claim in listed] + restated + [row["id"] for rows in kinds.values() for row in rows]
    numbers = {name.partition("-")[0] for name in ids}
    assert numbers >= {f"C{n}" for n in range(1, 23)} | {f"I{n}" for n in range(1, 12)}
    assert len(ids) == len(set(ids))
    assert all((ROOT / "notebooks" / f"{claim['notebook']}.ipynb").is_file() for claim in listed)


def test_contradictions_contradict_and_identities_hold():
    fits = {
        kind: set(claims.statements_table(claims.load_statements(CLAIMS, kind))["fits"])
        for kind in ("contradiction", "identity")
    }
    assert fits == {"contradiction": {"no"}, "identity": {"yes"}}


def test_the_papers_numbers_fit_each_other_where_one_follows_from_others():
    assert PAPER["gain_over_zero_one"] == pytest.approx(PAPER["top1_ablation"] - PAPER["top1_zero_one"])
    assert PAPER["zero_one_operations"] == pytest.approx(
        PAPER["reduction_512_zero_one"] / PAPER["reduction_512_signed_binary"]
    )
    assert PAPER["zero_one_speed"] == pytest.approx(PAPER["layer_512_zero_one"] / PAPER["layer_512_signed_binary"])


def test_rows_hold_words_of_the_lists_and_what_is_missing(judged):
    table = judged["speed"].set_index("id")
    assert set(table["verdict"]) <= set(claims.VERDICTS)
    assert table.loc["C5", ["verdict", "ours", "n"]].tolist() == ["no record", "-", 0]
    assert table.loc["C5", "lacks"] == "a training run of the design signed_binary"
    assert table.loc["C13", "verdict"] == "out of reach" and "PROFILE=imagenet" in table.loc["C13", "command"]
    assert table.loc["C1", "cpu"] == "AMD EPYC (avx512)" and table.loc["C1", "records"] == "layers"
    assert (table.loc[table["n"] > 0, "verdict"] != "no record").all()


def test_the_density_of_an_untrained_network_does_not_agree(judged):
    verdicts = judged["review"].set_index("id")["verdict"]
    assert verdicts[["C5", "C5-untrained"]].tolist() == ["agrees", "weaker"]


def test_a_single_seed_decides_nothing(listed, committed):
    evidence = committed("cifar")._evidence
    chosen = [claim for claim in listed if claim["id"] == "C8-ternary"]
    row = claims.claims_table(chosen, evidence).iloc[0]
    assert (row["verdict"], row["lacks"], row["n"]) == ("no record", claims.ONE_SEED, 1)


def test_no_records_give_no_verdicts(listed):
    table = claims.claims_table(listed, Evidence(pd.DataFrame(), pd.DataFrame(), {}))
    assert set(table["verdict"]) == {"no record", "out of reach"} and (table["n"] == 0).all()


def test_headline_is_what_a_stranger_reads(listed, judged):
    headline = claims.headline_table(listed, judged["review"])
    assert 4 <= len(headline) <= 8 and len(headline.columns) <= 7


def test_each_cpu_has_its_row(listed, committed):
    profiles = ("review", "speed", "cifar", "int8")
    table = claims.cpus_table(listed, {name: committed(name)._evidence.bench for name in profiles})
    rows = table[table["id"] == "C1-signed"]
    assert rows["profile"].tolist() == ["review", "speed", "int8"], "cifar has no benchmark"
    assert rows["cpu"].tolist() == ["Intel(R) Xeon(R) Processor (avx512)", "AMD EPYC (avx512)", "AMD EPYC (avx2)"]
    assert rows["of"].tolist() == ["processes", "rounds", "rounds"]
    assert rows["ours"].tolist() == ["1.08 ± 0.05 (n=5)", "1.10 ± 0.05 (n=7)", "1.09 ± 0.07 (n=7)"]


def test_effects_are_tested_together_and_pairs_across_cpus_are_counted():
    """Holm by hand: 0.01 * 3, 0.02 * 2 and 0.04 * 1, of which none may be below the one before."""
    runs = [
        ("a-s0", 0, "EPYC", "avx512"),
        ("b-s0", 0, "EPYC", "avx2"),
        ("a-s1", 1, "Xeon", "amx"),
        ("b-s1", 1, "Xeon", "amx"),
    ]
    train = pd.DataFrame(runs, columns=["name", "seed", "provenance_cpu", "provenance_isa"])
    rows = []
    for name, p in (("first", 0.04), ("second", 0.01), ("third", 0.02)):
        distance = -stdtrit(2, p / 2) / stdtrit(2, 0.975)  # of a half width of 1 and n = 3
        records = ", ".join(train["name"]) if name == "second" else "layers"
        row = {"id": name, "ours": "-", "value": 5 + distance, "neutral": 5.0, "half_width": 1.0, "n": 3}
        rows.append(row | {"records": records})
    rows.append({"id": "a level", "value": 1.0, "half_width": 1.0, "n": 3, "records": ""})
    found = claims.tests_table(pd.DataFrame(rows), Evidence(train, pd.DataFrame(), {}))
    assert found["id"].tolist() == ["second", "third", "first"]
    assert found["p"].tolist() == pytest.approx([0.01, 0.02, 0.04])
    assert found["holm"].tolist() == pytest.approx([0.03, 0.04, 0.04])
    assert found["stands"].tolist() == ["yes"] * 3 and found["across_cpus"].tolist() == ["1 of 2", "-", "-"]


def test_inventory_counts_verdicts(judged):
    item = {"item": "Fig. 7", "content": "", "setting": "", "claims": ["C1", "C6", "I2"], "note": ""}
    drawn = {"figures/speedup": {"paper": "Fig. 7, Fig. 11"}, "figures/density": {"paper": "Fig. 17"}}
    row = claims.inventory_table([item], judged["speed"], ["I2"], drawn).iloc[0]
    of_c1 = judged["speed"]["id"].str.fullmatch(r"C(1|6)(-.*)?").sum()
    assert row["here"] == "figures/speedup"
    assert sum(map(int, re.findall(r"\d+", row["verdicts"]))) == of_c1, "C1 stands for C1-signed, and not for C10"
    with pytest.raises(ValueError, match=r"item Fig\. 7: claims = 'C99'; allowed: C8, or C8-binary"):
        claims.inventory_table([item | {"claims": ["C99"]}], judged["speed"], [], drawn)


def test_inventory_has_every_item_that_the_catalogue_answers(judged):
    import tomllib

    catalogue = tomllib.loads((ROOT / "notebooks" / "catalogue.toml").read_text())
    statements = [row["id"] for kind in ("contradiction", "identity") for row in claims.load_statements(CLAIMS, kind)]
    inventory = claims.inventory_table(claims.load_inventory(CLAIMS), judged["review"], statements, catalogue)
    answered = {name for entry in catalogue.values() for name in entry["paper"].split(", ") if name}
    assert answered <= set(inventory["item"])
    assert ((inventory["here"] != "-") | (inventory["note"] != "")).all()


CLAIM = {
    "id": '"X"', "text": '"t"', "paper": '"energy"', "margin": "1", "neutral": "1.0", "setting": '"s"', "source": '"f"',
    "how": '"h"', "measure": '"modelled_energy"', "notebook": '"09_energy"',
    "arguments": '{ ours = { design = "signed_binary" }, over = { design = "binary" } }',
}  # fmt: skip


@pytest.mark.parametrize(
    ("key", "value", "message"),
    [
        ("measure", '"guess"', "claim X: measure = 'guess'; allowed: , top1_gap|claim X: measure = 'guess'; allowed"),
        ("measure", '""', 'claim X: measure = "" without a command; allowed: a command'),
        ("paper", '"speed"', "claim X: paper = 'speed'; allowed: speedup_over_binary"),
        ("margin", '"sign"', r"claim X\.margin = 'sign'; allowed: id \(str\)"),
        ("neutral", "nan", "claim X: neutral = nan; allowed: a finite number"),
        ("kind", '"about"', "claim X: kind = 'about'; allowed: effect, as accurate, level"),
        ("kind", '"level"', "claim X: better = None; allowed: higher, lower"),
        ("restates", '["X"]', "claim X: restates = 'X'; allowed: an id that no other claim"),
        ("arguments", '{ ours = { design = "x" } }', "claim X: modelled_energy lacks over; allowed: ours, over"),
        ("colour", "1", r"claim X\.colour = 1; allowed: id \(str\)"),
        ("how", None, r"claim X lacks how; allowed: id \(str\)"),
    ],
)
def test_load_claims_names_what_is_wrong(tmp_path, key, value, message):
    rows = {name: text for name, text in (CLAIM | {key: value}).items() if text is not None}
    path = tmp_path / "claims.toml"
    path.write_text("[[claim]]\n" + "".join(f"{name} = {text}\n" for name, text in rows.items()))
    with pytest.raises(ValueError, match=message):
        claims.load_claims(path)


def test_loaders_refuse_an_id_twice(tmp_path):
    path = tmp_path / "claims.toml"
    path.write_text(CLAIMS.read_text() * 2)
    with pytest.raises(ValueError, match=r"claim C1 stands twice"):
        claims.load_claims(path)
    with pytest.raises(ValueError, match=r"item Table 1 stands twice"):
        claims.load_inventory(path)
    with pytest.raises(ValueError, match="kind = 'claim'; allowed: contradiction, identity"):
        claims.load_statements(path, "claim")
