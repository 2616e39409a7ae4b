import subprocess
import sys

import pytest

from fertool import registry
from fertool.errors import UsageError
from fertool.registry import CRITERIA, SCHEDULES, Registry

REGISTRIES = [value for value in vars(registry).values() if isinstance(value, Registry)]
kinds = pytest.mark.parametrize("members", REGISTRIES, ids=lambda members: members.kind)


def test_names_and_summaries_import_no_member():
    code = """
import sys
from fertool import registry
for members in vars(registry).values():
    if isinstance(members, registry.Registry):
        assert all(members.summary(name) for name in members.names())
print([module for module in ("torch", "numpy", "onnx") if module in sys.modules])
"""
    output = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True
    )
    assert output.stdout.strip() == "[]"


@kinds
def test_every_member_loads_under_its_name(members):
    assert members.names()
    for name in members.names():
        assert members.load(name).__doc__.startswith(members.summary(name))


@kinds
def test_an_unknown_name_lists_the_choices_with_the_nearest_first(members):
    name = members.names()[0]
    with pytest.raises(UsageError) as raised:
        members.load(f"{name}x")
    assert f"unknown {members.kind} '{name}x'" in raised.value.message
    assert raised.value.hint.startswith(f"did you mean '{name}'?")
    assert all(known in raised.value.hint for known in members.names())


@kinds
def test_a_package_adds_a_member_by_its_entry_point(members, install):
    install(members.entry_point_group, "others", 'class Member:\n    """Of another package."""\n')
    assert "others" in members.names()
    assert members.summary("others") == "Of another package"
    assert members.load("others").__name__ == "Member"


def test_a_package_that_does_not_load_breaks_nothing_but_its_own_member(install):
    install(CRITERIA.entry_point_group, "others", "import a_package_that_is_not_there")
    assert "others" in CRITERIA.names()
    assert CRITERIA.load("l1")
    with pytest.raises(UsageError, match="'others': its package does not load"):
        CRITERIA.load("others")


def test_a_script_adds_a_member_but_takes_no_name_of_fertool(monkeypatch):
    monkeypatch.setattr(CRITERIA, "_loaded", dict(CRITERIA._loaded))

    @CRITERIA.register("mine")
    class Mine:
        """Of a script."""

        needs_images = True

    assert CRITERIA.load("mine") is Mine
    assert CRITERIA.attribute("mine", "needs_images", False) is True
    assert "mine" in CRITERIA.names()
    with pytest.raises(UsageError, match="fertool has one of this name"):
        CRITERIA.register("l1")(Mine)


def test_an_attribute_is_read_from_the_source_or_the_default():
    assert CRITERIA.attribute("bn-gamma", "scores_depthwise", True) is False
    assert CRITERIA.attribute("l1", "scores_depthwise", True) is True


def test_an_attribute_that_no_member_sets_is_that_of_their_base_class(install):
    assert SCHEDULES.attribute("one-shot", "trains_first") is False
    assert SCHEDULES.attribute("iterative", "trains_first") is True
    # A class of another package need not be derived from it.
    install(SCHEDULES.entry_point_group, "others", 'class Member:\n    """Another one."""\n')
    assert SCHEDULES.attribute("others", "trains_first") is True
