"""A method looks the same in every figure, whoever else is there."""

from __future__ import annotations

import hashlib
import itertools

from service.results.report import figures, marks, style, svg
from service.results.report.palette import COLOURS, OTHERS, PRUNERS, VARIABLES, style_of
from service.terminal.labels import method_name, rank
from tests.service.results.test_cells import drawn, of, runs
from trainables import plugins


def test_a_methods_colour_does_not_depend_on_the_others() -> None:
    dense, snip, erk = runs("dense", 0.0, [50.0]), runs("snip", 0.95, [40.0]), runs("random_erk", 0.95, [30.0])
    for tasks in (of(dense, snip), of(dense, runs("grasp", 0.95, [45.0]), snip, erk)):
        (panel,) = figures.by_sparsity(tasks)
        lines = {line.get_color(): line.get_ydata()[0] for line in drawn(panel).lines if line.get_linestyle() != "--"}
        assert lines[style_of("snip").colour] == 40.0


def test_every_pruner_of_this_project_has_a_look_of_its_own() -> None:
    assert set(plugins.names("pruners")) == {*PRUNERS, "dense"}
    looks = [style_of(pruner) for pruner in (*PRUNERS, "dense")]
    assert len({look.colour for look in looks}) == len(looks)
    assert len({look.marker for look in looks[:-1]}) == len(looks) - 1
    assert len({paper for paper, _ in COLOURS.values()}) == len(VARIABLES) == len(COLOURS), "each colour is one of the page's variables"


def test_variants_have_their_pruners_colour_and_a_dash_of_their_own() -> None:
    variants = [style_of(f"snip{options}") for options in ("", "+shuffle", "+reinit", "+rescale=layer")]
    assert {look.colour for look in variants} == {style_of("snip").colour}
    for first, second in itertools.combinations(variants, 2):
        assert first.dash != second.dash
        assert first.marker != second.marker
        assert first.hatch != second.hatch


def test_a_control_of_a_variant_looks_like_a_control_and_like_a_variant() -> None:
    """Its dash is the control's; where the mark's shape says the sparsity, so is its filling."""
    fills = {options: marks.variant_fill(f"snip{options}") for options in ("", "+shuffle", "+reinit", ",critic@90", ",critic@90+shuffle")}
    assert list(fills.values()) == ["full", "left", "top", "right", "left"]
    of_variant, control, variant = (style_of(f"snip{options}") for options in (",critic@90+shuffle", "+shuffle", ",critic@90"))
    assert of_variant.dash == control.dash
    assert of_variant.marker == variant.marker != control.marker
    assert of_variant.hatch == control.hatch + variant.hatch


def test_a_plug_in_of_somebody_elses_has_a_colour_by_its_name() -> None:
    for name in ("mine", "yours", "theirs", "our_own", "another"):
        (colour, _), marker = OTHERS[hashlib.sha256(name.encode()).digest()[0] % len(OTHERS)]
        assert (style_of(name).colour, style_of(name).marker) == (colour, marker), "in every process, so in every report"
        assert style_of(f"{name}+shuffle").colour == colour
    assert len({style_of(f"mine{number}").colour for number in range(50)}) == len(OTHERS)


def test_the_page_draws_in_its_own_variables() -> None:
    (panel,) = figures.by_sparsity(of(runs("dense", 0.0, [50.0]), runs("snip", 0.95, [40.0])))
    sheet = style.drawn([panel])
    (text,) = svg.cut(style.saved(sheet, "svg"), sheet, "test")
    assert "var(--method-snip)" in text
    assert "var(--ink)" in text
    assert not set(VARIABLES) & set(text.split('"'))


def test_methods_have_one_order_and_the_names_of_papers() -> None:
    methods = ["zeta", "random_erk", "snip+shuffle", "alpha", "dense", "grasp", "snip"]
    assert sorted(methods, key=rank) == ["dense", "snip", "snip+shuffle", "grasp", "random_erk", "alpha", "zeta"]
    assert method_name("snip,critic@90+shuffle", 0.95) == "SNIP 95 %, critic 90 %, shuffled"
    assert method_name("grasp+calibration_size=64") == "GraSP, calibration size 64"
    assert method_name("dense", 0.0) == method_name("dense") == "dense"


def test_no_method_looks_like_a_seed_without_a_score() -> None:
    """That is an x on the axis."""
    variants = {style_of(f"{pruner}+delta={number}").marker for pruner in PRUNERS for number in range(20)}
    assert "x" not in variants | {style_of(pruner).marker for pruner in PRUNERS}
