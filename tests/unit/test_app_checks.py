"""What the checks of an APK must find: each one on a case made by hand."""

from __future__ import annotations

from finet_deploy.app.check_java import (
    api_differences,
    jni_problems,
    named_classes,
    symbol_problems,
)
from finet_deploy.app.classfile import ClassFile, Member
from finet_deploy.app.elf import NativeLibrary

NATIVE = 0x0100
PACKAGES = ("org/example/",)


def class_(name, *natives):
    methods = [Member(method, descriptor, NATIVE, 0) for method, descriptor in natives]
    return ClassFile(name, "java/lang/Object", 52, dynamic=False, nested=False, methods=methods)


def library(name="libx.so", *, provides=(), needs=(), symbols=(), texts=()):
    constants = b"\0".join(text.encode() for text in texts) + b"\0"
    return NativeLibrary(
        name,
        "EM_AARCH64",
        16384,
        tuple(needs),
        frozenset(provides),
        frozenset(symbols),
        frozenset(texts),
        constants,
    )


ITEM = {"org/example/Item": class_("org/example/Item", ("run_it", "(I)V"))}


def test_an_exported_function_serves_a_native_method():
    assert jni_problems(ITEM, [library(provides=["Java_org_example_Item_run_1it"])], PACKAGES) == []
    assert jni_problems(ITEM, [library(provides=["Java_org_example_Item_run_1it__I"])], PACKAGES) == []
    found = jni_problems(ITEM, [library(provides=["Java_org_example_Item_run_1other"])], PACKAGES)
    assert found == ["no library has the native method org/example/Item.run_it(I)V"]


def test_a_registered_method_needs_its_class_name_and_types():
    texts = ["org/example/Item", "run_it", "(I)V"]
    assert jni_problems(ITEM, [library(texts=texts)], PACKAGES) == []
    assert jni_problems(ITEM, [library(texts=["Lorg/example/Item;", "long_run_it", "(I)V"])], PACKAGES) == []
    assert jni_problems(ITEM, [library(texts=["org/example/Item", "run_it_longer", "(I)V"])], PACKAGES) != []
    for absent in texts:
        assert jni_problems(ITEM, [library(texts=[text for text in texts if text != absent])], PACKAGES) != []


def test_a_class_that_a_library_looks_for_must_be_there():
    texts = [
        "org/example/Item",
        "run_it",
        "(I)V",
        "(Lorg/example/Lost;)V",
        "java/lang/String",
        "org/other/Any",
    ]
    assert named_classes(library(texts=texts), PACKAGES) == {"org/example/Item", "org/example/Lost"}
    assert jni_problems(ITEM, [library(texts=texts)], PACKAGES) == [
        "libx.so looks for the class org/example/Lost, which the APK lacks"
    ]
    served = ["Java_org_example_Item_run_1it", "Java_org_example_Lost_go"]
    found = jni_problems(ITEM, [library(provides=served)], PACKAGES)
    assert found == ["Java_org_example_Lost_go is a function for a class that the APK lacks"]


def test_libraries_and_cpp_symbols_must_come_from_somewhere():
    user = library(
        "libuser.so", needs=["libbase.so", "libc.so", "libgone.so"], symbols=["_Zf", "_Zg", "malloc"]
    )
    base = library("libbase.so", provides=["_Zf"])
    assert symbol_problems([user, base]) == ["libuser.so needs libgone.so", "libuser.so needs the symbol _Zg"]
    assert symbol_problems([library("libuser.so", needs=["libbase.so"], symbols=["_Zf"]), base]) == []


def test_native_methods_that_differ_between_two_jars_are_named():
    other = {"org/example/Item": class_("org/example/Item", ("run_it", "(J)V"))}
    assert api_differences(ITEM, ITEM) == []
    assert len(api_differences(ITEM, other)) == 2
