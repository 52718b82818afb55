"""Class files of Java 11 made fit for a dexer that knows no nests. Compiled here; skipped without a JDK."""

from __future__ import annotations

import shutil
import subprocess

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from finet_deploy.app.check_java import access_problems, dynamic_problems
from finet_deploy.app.classfile import open_nests, parse_class
from finet_deploy.errors import FinetDeployError

NEST = """
public class Nest {
    private int field = 1;
    private final int unused = 9;
    private int method() { return field + 1; }
    private static int fixed() { return 40; }
    static class Inner {
        private Inner() {}
        int use(Nest nest) { return nest.field + nest.method() + fixed(); }
    }
    private native int outside(String name);
    public static void main(String[] arguments) { System.out.println(new Inner().use(new Nest())); }
}
"""
CHILD = """
public class Nest {
    private int method() { return 1; }
    static class Child extends Nest {}
    static class Grandchild extends Child { int method() { return 2; } }
    int call() { return method(); }
}
"""


def compiled(folder, source, release):
    if shutil.which("javac") is None:
        pytest.skip("no javac")
    folder.mkdir(exist_ok=True)
    (folder / "Nest.java").write_text(source)
    command = ["javac", "-Xlint:-options", "--release", release, "Nest.java"]
    subprocess.run(command, cwd=folder, check=True, capture_output=True)
    return {path.name: path.read_bytes() for path in folder.glob("*.class")}


def parsed(classes):
    return {item.name: item for item in map(parse_class, classes.values())}


def test_members_flags_and_versions_are_read(tmp_path):
    nest = parsed(compiled(tmp_path, NEST, "11"))["Nest"]
    assert (nest.version, nest.parent, nest.nested) == (55, "java/lang/Object", True)
    assert {member.name for member in nest.fields} == {"field", "unused"}
    outside = next(member for member in nest.methods if member.name == "outside")
    assert (outside.native, outside.private, outside.descriptor) == (True, True, "(Ljava/lang/String;)I")
    assert ("java/lang/System", "out", "Ljava/io/PrintStream;") in nest.refers


def test_private_members_of_a_nest_are_opened_and_the_program_stays_the_same(tmp_path):
    classes = compiled(tmp_path, NEST, "11")
    assert access_problems(parsed(classes)) != []
    opened = open_nests(classes)
    assert access_problems(parsed(opened)) == []
    nest = parsed(opened)["Nest"]
    assert {member.name for member in nest.fields if member.private} == {"unused"}
    assert all(not member.private for member in nest.methods)
    for name, data in opened.items():
        (tmp_path / name).write_bytes(data)
    done = subprocess.run(
        ["java", "-cp", str(tmp_path), "-Xverify:all", "Nest"], capture_output=True, text=True
    )
    assert done.stdout.strip() == "43"


def test_classes_of_java_8_are_left_as_they_are(tmp_path):
    classes = compiled(tmp_path, NEST, "8")
    assert open_nests(classes) == classes
    assert access_problems(parsed(classes)) == []


def test_a_private_method_that_would_be_overridden_is_refused(tmp_path):
    with pytest.raises(FinetDeployError, match="would override the private method of Nest"):
        open_nests(compiled(tmp_path, CHILD, "11"))


def test_lambdas_are_found(tmp_path):
    source = "public class Nest { Runnable r = () -> {}; }"
    classes = compiled(tmp_path, source, "8")
    assert dynamic_problems(parsed(classes).values()) == ["Nest has invokedynamic"]
    assert dynamic_problems(parsed(compiled(tmp_path / "none", "public class Nest {}", "8")).values()) == []


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(data=st.data())
def test_any_bytes_are_read_or_refused(tmp_path_factory, data):
    folder = tmp_path_factory.getbasetemp() / "fuzzed"
    if not (folder / "Nest.class").exists():
        compiled(folder, NEST, "11")
    whole = bytearray((folder / "Nest.class").read_bytes())
    for _ in range(data.draw(st.integers(0, 4))):
        whole[data.draw(st.integers(0, len(whole) - 1))] = data.draw(st.integers(0, 255))
    try:
        parse_class(bytes(whole[: data.draw(st.integers(0, len(whole)))]))
    except FinetDeployError as error:
        assert "not a class file" in str(error)
