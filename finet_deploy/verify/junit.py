"""A certificate as JUnit XML, the form that build servers show."""

from __future__ import annotations

import re
from xml.etree import ElementTree

from finet_deploy.verify.certificate import Certificate, Check
from finet_deploy.verify.summary import figure_lines

__all__ = ["junit_xml"]

# What XML 1.0 forbids even when escaped: control characters, lone surrogates, U+FFFE and U+FFFF.
_FORBIDDEN = re.compile("[^\t\n\r\u0020-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")


def _clean(text: str) -> str:
    return _FORBIDDEN.sub(lambda match: f"\\u{ord(match.group()):04x}", text)


def junit_xml(certificate: Certificate) -> str:
    """One testcase per check: `failure` with the message, `skipped` with the reason, `error` when missing."""
    failed = sum(check.passed is False for check in certificate.checks)
    skipped = sum(check.passed is None and check.acceptable for check in certificate.checks)
    errors = len(certificate.failures) - failed + len(certificate.missing)
    counts = {
        "name": _clean(certificate.subject),
        "tests": str(len(certificate.checks) + len(certificate.missing)),
        "failures": str(failed),
        "errors": str(errors),
        "skipped": str(skipped),
    }
    root = ElementTree.Element("testsuites", counts)
    suite = ElementTree.SubElement(root, "testsuite", counts)
    properties = ElementTree.SubElement(suite, "properties")
    for name, version in certificate.versions.items():
        ElementTree.SubElement(properties, "property", name=_clean(name), value=_clean(version))
    for check in certificate.checks:
        _add_case(suite, check)
    for name in certificate.missing:
        case = ElementTree.SubElement(
            suite, "testcase", classname=_clean(name.split("/")[0]), name=_clean(name)
        )
        ElementTree.SubElement(case, "error", message="this check was not made")
    ElementTree.indent(root)
    return '<?xml version="1.0" encoding="UTF-8"?>\n' + ElementTree.tostring(root, encoding="unicode") + "\n"


def _add_case(suite: ElementTree.Element, check: Check) -> None:
    case = ElementTree.SubElement(suite, "testcase", classname=_clean(check.stage), name=_clean(check.name))
    if check.passed is False:
        failure = ElementTree.SubElement(case, "failure", message=_clean(check.message))
        failure.text = _clean("\n".join(figure_lines(check)))
    elif check.passed is None:
        kind = "skipped" if check.acceptable else "error"
        ElementTree.SubElement(case, kind, message=_clean(check.reason or check.message))
    else:
        output = ElementTree.SubElement(case, "system-out")
        output.text = _clean("\n".join([check.message, *figure_lines(check)]))
