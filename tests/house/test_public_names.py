"""What `import trimtab as tt` offers."""

import ast
import inspect
from collections.abc import Iterator

import pytest
from tests.house.repository import PACKAGE

import trimtab
from trimtab import errors


@pytest.mark.parametrize("name", trimtab.__all__)
def test_every_public_name_loads_and_says_what_it_is(name: str) -> None:
    value = getattr(trimtab, name)
    doc = inspect.getdoc(value)
    assert doc, f"trimtab.{name} has no docstring"
    assert not doc.startswith(f"{name}("), f"trimtab.{name} has only the docstring that its class made up"


def test_names_for_type_checkers_and_names_at_run_time_are_the_same() -> None:
    tree = ast.parse((PACKAGE / "__init__.py").read_text())
    guarded = next(node for node in tree.body if isinstance(node, ast.If))
    declared = {
        alias.asname: f"{node.module}.{alias.name}"
        for node in guarded.body
        if isinstance(node, ast.ImportFrom)
        for alias in node.names
    }
    at_run_time = {name: f"{home}.{name}" for name, home in trimtab._HOMES.items()} | trimtab._MODULES
    assert declared == at_run_time
    assert sorted(trimtab.__all__) == sorted(at_run_time)


def test_a_name_that_is_not_public_is_refused_like_any_unknown_attribute() -> None:
    with pytest.raises(AttributeError, match="no_such_name"):
        trimtab.no_such_name  # noqa: B018  (looking it up is the test)


def test_dir_lists_the_public_names() -> None:
    assert set(trimtab.__all__) <= set(dir(trimtab))


def test_the_tree_on_top_of_errors_is_the_tree_of_the_classes() -> None:
    written = [line[4:] for line in (errors.__doc__ or "").splitlines() if "── " in line]
    expected = list(drawn(errors.TrimtabError))
    assert len(written) == len(expected)
    for line, (start, status) in zip(written, expected, strict=True):
        assert line.startswith(f"{start}  ")
        assert line.endswith(f" {status}")


def drawn(kind: type[errors.TrimtabError], prefix: str = "") -> Iterator[tuple[str, int]]:
    """The lines of the tree below `kind`, without their descriptions, and the statuses at their ends."""
    below = [child for child in kind.__subclasses__() if child.__module__ == "trimtab.errors"]
    for child in below:
        last = child is below[-1]
        builtin = [f" ({base.__name__})" for base in child.__bases__ if base.__module__ == "builtins"]
        yield prefix + ("└── " if last else "├── ") + child.__name__ + "".join(builtin), child.http_status
        yield from drawn(child, prefix + ("    " if last else "│   "))


def test_every_error_has_a_code_of_its_own() -> None:
    kinds = [
        value for value in vars(errors).values() if inspect.isclass(value) and issubclass(value, Exception)
    ]
    codes = [kind.code for kind in kinds if issubclass(kind, errors.TrimtabError)]
    assert len(codes) == len(set(codes))
