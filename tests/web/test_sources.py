import re

from fertool.web.sources import SERVICE_WORKER, STATIC, joined_modules, module_names, read_source


def test_every_file_is_used():
    used = {*module_names(), SERVICE_WORKER, "index.html", "app.css"}
    assert {path.name for path in STATIC.iterdir()} == used


def test_modules_come_after_those_that_they_import():
    names = module_names()
    assert names[-1] == "main.js"
    for index, name in enumerate(names):
        for imported in re.findall(r"from '\./([\w-]+\.js)'", read_source(name)):
            assert imported in names[:index], name


def test_joined_modules_import_nothing_and_share_no_name():
    script = joined_modules()
    assert not re.search(r"^(import|export)\b", script, re.MULTILINE)
    declared = re.findall(r"^(?:async )?(?:function|class|const|let) (\w+)", script, re.MULTILINE)
    assert len(declared) > 50
    assert sorted(set(declared)) == sorted(declared)
    assert "</script" not in script.lower()
    assert "<!--" not in script


def test_texts_are_set_as_text():
    # A class name is someone else's text.
    assert not re.search(
        r"innerHTML|outerHTML|insertAdjacentHTML|eval\(|Function\(", joined_modules()
    )
