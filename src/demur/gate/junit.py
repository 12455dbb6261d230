"""A gate as JUnit XML, which servers of continuous integration show as tests."""

from __future__ import annotations

from xml.etree import ElementTree

from demur.gate.gate import GateResult
from demur.markdown import printable

SUITE = "demur gate"


def junit_xml(result: GateResult) -> bytes:
    """One test case for each check.

    A check that keeps the gate closed is a failure, whose type is `failed` or `undecided`. One that
    is undecided and let pass is skipped. Notes are the suite's output.

    Args:
        result: what the gate came to.

    Returns:
        The file's content, UTF-8.
    """
    failures = sum(result.fails(one) for one in result.checks)
    let_pass = sum(one.status == "undecided" and not result.fails(one) for one in result.checks)
    counts = {
        "tests": str(len(result.checks)),
        "failures": str(failures),
        "errors": "0",
        "skipped": str(let_pass),
        "time": "0",
    }
    root = ElementTree.Element("testsuites", {"name": SUITE, **counts})
    suite = ElementTree.SubElement(root, "testsuite", {"name": SUITE, **counts})
    for one in result.checks:
        name, classname = _text(f"{one.name} [{one.about}]"), f"demur.{_text(result.candidate)}"
        case = ElementTree.SubElement(
            suite, "testcase", {"name": name, "classname": classname, "time": "0"}
        )
        told = _text(f"{one.found}; {one.advice}" if one.advice else one.found)
        if result.fails(one):
            failure = ElementTree.SubElement(case, "failure", {"message": told, "type": one.status})
            failure.text = _text(str(one))
        elif one.status == "undecided":
            ElementTree.SubElement(case, "skipped", {"message": f"undecided: {told}"})
        else:
            ElementTree.SubElement(case, "system-out").text = told
    if result.notes:
        ElementTree.SubElement(suite, "system-out").text = "\n".join(map(_text, result.notes))
    ElementTree.indent(root)
    xml: bytes = ElementTree.tostring(root, encoding="utf-8", xml_declaration=True)
    return xml + b"\n"


def _text(text: str) -> str:
    """Text in one line, without the characters that XML cannot hold."""
    return " ".join(printable(text).split())
