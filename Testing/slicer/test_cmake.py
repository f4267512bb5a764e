"""The extension as Slicer's build system and its Extensions Index see it: everything listed, everything packaged."""

from __future__ import annotations

import ast
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from PIL import Image

ROOT = Path(__file__).resolve().parents[2]
MODULE = ROOT / "RadiomicsLLM"
SCRIPTED_MODULES = "lib/Slicer-5.12/qt-scripted-modules"
REQUIRED = ("HOMEPAGE", "CONTRIBUTORS", "DESCRIPTION", "ICONURL", "SCREENSHOTURLS", "DEPENDS")
WEB = "https://github.com/RadiomicsLLM/SlicerRadiomicsLLM/raw/main/"

# A Slicer that builds nothing: it writes down with what it was called, and refuses a listed file that does not exist.
SLICER_CONFIG = 'set(Slicer_USE_FILE "${CMAKE_CURRENT_LIST_DIR}/UseSlicer.cmake")'
USE_SLICER = f"""
set(Slicer_QTSCRIPTEDMODULES_LIB_DIR "{SCRIPTED_MODULES}")
set(Slicer_INSTALL_QTSCRIPTEDMODULES_LIB_DIR "{SCRIPTED_MODULES}")
set(Slicer_EXTENSION_GENERATE_CONFIG "${{CMAKE_CURRENT_LIST_DIR}}/GenerateConfig.cmake")
set(Slicer_EXTENSION_CPACK "${{CMAKE_CURRENT_LIST_DIR}}/CPack.cmake")
set(BUILD_TESTING ON)
function(record kind)
  foreach(value IN LISTS ARGN)
    file(APPEND "${{CMAKE_BINARY_DIR}}/calls.txt" "${{kind}}\\t${{value}}\\n")
  endforeach()
endfunction()
function(slicerMacroBuildScriptedModule)
  cmake_parse_arguments(MODULE "WITH_GENERIC_TESTS" "NAME" "SCRIPTS;RESOURCES" ${{ARGN}})
  if(MODULE_UNPARSED_ARGUMENTS)
    message(FATAL_ERROR "Unknown keywords ${{MODULE_UNPARSED_ARGUMENTS}}")
  endif()
  foreach(file IN LISTS MODULE_SCRIPTS MODULE_RESOURCES)
    if(NOT EXISTS "${{CMAKE_CURRENT_SOURCE_DIR}}/${{file}}")
      message(FATAL_ERROR "given nonexistent file ${{file}}")
    endif()
  endforeach()
  record(name ${{MODULE_NAME}})
  record(script ${{MODULE_SCRIPTS}})
  record(resource ${{MODULE_RESOURCES}})
endfunction()
function(slicer_add_python_unittest)
  cmake_parse_arguments(TEST "" "SCRIPT" "SLICER_ARGS" ${{ARGN}})
  if(NOT EXISTS "${{CMAKE_CURRENT_SOURCE_DIR}}/${{TEST_SCRIPT}}")
    message(FATAL_ERROR "given nonexistent test ${{TEST_SCRIPT}}")
  endif()
  record(test "${{CMAKE_CURRENT_SOURCE_DIR}}/${{TEST_SCRIPT}}")
endfunction()
"""
GENERATE_CONFIG = "record(project ${PROJECT_NAME})\n" + "".join(
    f"record({name} ${{EXTENSION_{name}}})\n" for name in REQUIRED
)


@pytest.fixture(scope="session")
def slicer_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    if shutil.which("cmake") is None:
        pytest.skip("cmake is not installed")
    folder = tmp_path_factory.mktemp("Slicer")
    for name, content in (
        ("SlicerConfig.cmake", SLICER_CONFIG),
        ("UseSlicer.cmake", USE_SLICER),
        ("GenerateConfig.cmake", GENERATE_CONFIG),
        ("CPack.cmake", "record(cpack yes)\n"),
    ):
        (folder / name).write_text(content)
    return folder


@pytest.fixture(scope="session")
def build(slicer_dir: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The repository, configured."""
    folder = tmp_path_factory.mktemp("build")
    done = configure(ROOT, slicer_dir, folder)
    assert done.returncode == 0, done.stderr
    return folder


def configure(source: Path, slicer_dir: Path, build: Path) -> subprocess.CompletedProcess[str]:
    command = ["cmake", "-S", str(source), "-B", str(build), f"-DSlicer_DIR={slicer_dir}"]
    return subprocess.run(command, capture_output=True, text=True)


def calls(build: Path, kind: str) -> list[str]:
    lines = (line.split("\t") for line in (build / "calls.txt").read_text().splitlines())
    return [value for name, value in lines if name == kind]


def unlisted(module: Path, build: Path) -> set[str]:
    """Files of the module that Slicer would leave out of the package: all but its CMake files and its tests."""
    there = {path.relative_to(module) for path in module.rglob("*") if path.is_file()}
    own = {path for path in there if path.parts[0] != "Testing" and not any(map(is_cache, path.parts))}
    return {path.as_posix() for path in own} - {"CMakeLists.txt", *calls(build, "script"), *calls(build, "resource")}


def is_cache(name: str) -> bool:
    return name == "__pycache__" or name.startswith(".")


def test_every_file_of_the_module_is_listed_once(build: Path) -> None:
    assert unlisted(MODULE, build) == set()
    scripts, resources = calls(build, "script"), calls(build, "resource")
    assert len({*scripts, *resources}) == len(scripts) + len(resources)
    assert {Path(name).suffix for name in scripts} == {".py"}
    assert {Path(name).suffix for name in resources} == {".csv", ".png", ".txt", ".ui"}


def test_every_test_is_registered(build: Path) -> None:
    there = {MODULE / "RadiomicsLLM.py", *(MODULE / "Testing" / "Python").glob("*.py")}
    assert {Path(path) for path in calls(build, "test")} == there


@pytest.mark.parametrize(
    "name",
    [
        "RadiomicsLLMLib/New.py",
        "RadiomicsLLMLib/scene/New.py",
        "Resources/UI/New.ui",
        "Resources/Icons/New.png",
        "New.py",
    ],
)
def test_a_file_that_is_not_listed_is_noticed(tmp_path: Path, slicer_dir: Path, name: str) -> None:
    source = copy_of_the_extension(tmp_path)
    (source / "RadiomicsLLM" / name).touch()
    assert configure(source, slicer_dir, tmp_path / "build").returncode == 0
    assert unlisted(source / "RadiomicsLLM", tmp_path / "build") == {name}


@pytest.mark.parametrize("name", ["RadiomicsLLMLib/results/ResultTable.py", "Resources/UI/RadiomicsLLM.ui"])
def test_a_listed_file_that_is_missing_stops_the_build(tmp_path: Path, slicer_dir: Path, name: str) -> None:
    source = copy_of_the_extension(tmp_path)
    (source / "RadiomicsLLM" / name).unlink()
    done = configure(source, slicer_dir, tmp_path / "build")
    assert done.returncode != 0
    assert f"nonexistent file {name}" in done.stderr


def copy_of_the_extension(folder: Path) -> Path:
    source = folder / "source"
    shutil.copytree(MODULE, source / "RadiomicsLLM", ignore=shutil.ignore_patterns("__pycache__", ".*"))
    shutil.copy(ROOT / "CMakeLists.txt", source)
    (source / "radllm_backend").mkdir()
    return source


def test_the_extensions_index_finds_what_it_asks_for(build: Path) -> None:
    assert calls(build, "project") == calls(build, "name") == ["RadiomicsLLM"]
    for name in REQUIRED:
        assert calls(build, name), f"EXTENSION_{name} is not set"
    assert calls(build, "DEPENDS") == ["SlicerRadiomics"]
    assert calls(build, "HOMEPAGE") == ["https://github.com/RadiomicsLLM/SlicerRadiomicsLLM"]
    for url in (*calls(build, "ICONURL"), *calls(build, "SCREENSHOTURLS")):
        assert (ROOT / url.removeprefix(WEB)).is_file(), url
    assert calls(build, "cpack") == ["yes"]


def test_the_icons_are_128_pixels_wide() -> None:
    for path in (ROOT / "Resources" / "RadiomicsLLM.png", MODULE / "Resources" / "Icons" / "RadiomicsLLM.png"):
        assert Image.open(path).size == (128, 128)


def test_the_backend_is_beside_the_module_installed_and_in_the_build_tree(build: Path, tmp_path: Path) -> None:
    subprocess.run(["cmake", "--install", str(build), "--prefix", str(tmp_path)], check=True, capture_output=True)
    package = ROOT / "radllm_backend"
    wanted = {
        path.relative_to(package) for path in package.rglob("*") if path.is_file() and "__pycache__" not in path.parts
    }
    for folder in (tmp_path / SCRIPTED_MODULES, build / SCRIPTED_MODULES):
        copied = folder / "radllm_backend"
        assert {path.relative_to(copied) for path in copied.rglob("*") if path.is_file()} == wanted
        code = "import sys; sys.path.insert(0, sys.argv[1]); import radllm_backend; print(radllm_backend.__file__)"
        found = subprocess.run([sys.executable, "-c", code, str(folder)], check=True, capture_output=True, text=True)
        assert Path(found.stdout.strip()) == copied / "__init__.py"


def test_translators_get_whole_sentences() -> None:
    """Only a plain string can be found by the tools that collect texts for translation."""
    sources = [path for path in MODULE.rglob("*.py") if "Testing" not in path.parts]
    texts = 0
    for path in sources:
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Call) and getattr(node.func, "id", "") == "_":
                assert isinstance(node.args[0], ast.Constant), f"{path.name}, line {node.lineno}"
                texts += 1
    assert texts > 10


def test_the_module_file_stays_thin() -> None:
    assert len((MODULE / "RadiomicsLLM.py").read_text(encoding="utf-8").splitlines()) < 250
