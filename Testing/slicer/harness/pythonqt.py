"""PythonQt's habits laid over PySide6's classes, so that code written for Slicer runs unchanged."""

from __future__ import annotations

import ast
import builtins
import importlib.machinery
import inspect
import re
import sys
import types
from collections.abc import Iterator, Sequence
from importlib.machinery import ModuleSpec
from pathlib import Path
from typing import Any

from PySide6 import QtCore, QtGui, QtWidgets

slot_errors: list[BaseException] = []
"""Exceptions that left a slot or a VTK observer: they end there, in Slicer as here."""

_QT_MODULES = (QtWidgets, QtGui, QtCore)
_VIRTUAL = ("sizeHint", "minimumSizeHint")  # C++ calls these, so they stay methods
_STATIC = ("singleShot",)  # of QTimer: in PythonQt as here ``qt.QTimer.singleShot(0, function)``
_CONNECT = "__pythonqt_connect__"
_get, _set = QtCore.QObject.property, QtCore.QObject.setProperty


def stray_attributes(widget: QtWidgets.QWidget) -> list[str]:
    """Attributes that Python code set on Qt's own widgets below this one: misspelt properties."""
    strays = set()
    for child in [widget, *widget.findChildren(QtCore.QObject)]:
        if type(child).__module__.startswith("PySide6"):
            names = {name for name, value in vars(child).items() if not isinstance(value, QtCore.SignalInstance)}
            strays |= {f"{type(child).__name__}.{name}" for name in names}
    return sorted(strays)


def find_modules_below(folder: Path) -> None:
    """From now on, modules below this folder may be imported, with calls of ``connect`` in PythonQt's form."""
    _finder.folders.add(folder)
    if str(folder) not in sys.path:
        sys.path.insert(0, str(folder))


def qt_module(**more: Any) -> types.ModuleType:
    """What ``import qt`` gives in Slicer: all of Qt's names in one place."""
    module = types.ModuleType("qt")
    vars(module).update(more)

    def lookup(name: str) -> Any:
        home = next((home for home in _QT_MODULES if hasattr(home, name)), QtCore)
        return getattr(home, name)

    vars(module)["__getattr__"] = lookup
    return module


def _properties_as_attributes() -> None:
    """``button.text`` instead of ``button.text()``: properties of the meta-object become Python properties."""
    for qt_class in _qt_classes():
        if callable(getattr(qt_class, "exec", None)) and not hasattr(qt_class, "exec_"):
            qt_class.exec_ = qt_class.exec
        meta = qt_class.staticMetaObject
        for index in range(meta.propertyOffset(), meta.propertyCount()):
            name = meta.property(index).name()
            own = qt_class.__dict__.get(name)
            if name not in (*_VIRTUAL, *_STATIC) and (own is None or inspect.ismethoddescriptor(own)):
                setattr(qt_class, name, _property(name))
    QtCore.QObject.name = _property("objectName")
    QtCore.QObject.className = lambda self: self.metaObject().className()


def _qt_classes() -> Iterator[Any]:
    for module in _QT_MODULES:
        for name in dir(module):
            candidate = getattr(module, name)
            if inspect.isclass(candidate) and issubclass(candidate, QtCore.QObject):
                yield candidate


def _property(name: str) -> property:
    return property(lambda self: _get(self, name), lambda self, value: _set(self, name, value))


def connect(how: str, sender: Any, first: Any, *rest: Any) -> Any:
    """``sender.connect("clicked(bool)", slot)`` as PythonQt takes it; any other object's ``connect`` as it is."""
    if not isinstance(sender, QtCore.QObject):
        return getattr(sender, how)(first, *rest)
    signature = re.fullmatch(r"(\w+)\(.*\)", first)
    signal = getattr(sender, signature[1], None) if signature else None
    if not isinstance(signal, QtCore.SignalInstance):
        raise ValueError(f"{sender.className()} has no signal {first}")
    return getattr(signal, how)(*rest)


class _Rewriter(ast.NodeTransformer):
    """Turns ``widget.connect("...", slot)`` into a call of `connect`: PySide6 has no place to hook in at run time."""

    def visit_Call(self, node: ast.Call) -> ast.AST:
        self.generic_visit(node)
        function, arguments = node.func, node.args
        if not isinstance(function, ast.Attribute) or function.attr not in ("connect", "disconnect"):
            return node
        if not arguments or not isinstance(getattr(arguments[0], "value", None), str):
            return node
        name = ast.Name(_CONNECT, ast.Load())
        call = ast.Call(name, [ast.Constant(function.attr), function.value, *arguments], node.keywords)
        return ast.fix_missing_locations(ast.copy_location(call, node))


class _Loader(importlib.machinery.SourceFileLoader):
    def get_code(self, fullname: str) -> types.CodeType:
        return compile(_Rewriter().visit(ast.parse(self.get_data(self.path))), self.path, "exec")


class _Finder:
    def __init__(self) -> None:
        self.folders: set[Path] = set()

    def find_spec(self, name: str, path: Sequence[str] | None = None, _target: object = None) -> ModuleSpec | None:
        spec = importlib.machinery.PathFinder.find_spec(name, path)
        if spec is None or not spec.origin or not spec.origin.endswith(".py"):
            return None
        if not any(Path(spec.origin).is_relative_to(folder) for folder in self.folders):
            return None
        spec.loader = _Loader(spec.name, spec.origin)
        return spec


def collect_slot_errors() -> None:
    """Have ``slot_errors`` told of exceptions from now on; other code (Typer) takes the hook away at every call."""
    sys.excepthook = _hook


def _hook(kind: type[BaseException], error: BaseException, trace: types.TracebackType | None) -> None:
    slot_errors.append(error)
    sys.__excepthook__(kind, error, trace)


_finder = _Finder()
_properties_as_attributes()
collect_slot_errors()
setattr(builtins, _CONNECT, connect)
# The .ui file's own connections name C++ types; `widgets.qMRMLWidget` does their work.
QtCore.QLoggingCategory.setFilterRules("qt.core.qobject.connect=false")
sys.meta_path.insert(0, _finder)
