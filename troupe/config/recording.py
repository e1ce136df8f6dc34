"""Which keys of a config does a run read? A key that nothing reads is a promise that nobody keeps."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from typing import Any

from pydantic import BaseModel

from troupe.config.problems import Path, dotted
from troupe.config.schema import fields_of, is_section

__all__ = ["Recording", "unread"]


class Recording:
    """A config that remembers which of its leaves were read. It is handed to a run in place of the config:

        recording = Recording(load(Config).config)
        run(recording)
        assert recording.unread() == []

    Sections, and dicts and lists of sections, come back as recordings too; properties and methods of a section run on
    the recording, so that what they read counts. Pydantic's own methods (`model_dump`) run on the config and do not.
    """

    def __init__(self, config: Any, *, _read: set[str] | None = None, _path: Path = ()) -> None:
        object.__setattr__(self, "_recorded", config)
        object.__setattr__(self, "_read", set() if _read is None else _read)
        object.__setattr__(self, "_path", _path)

    def unread(self) -> list[str]:
        """Leaf keys of the config that nothing has read, in the config's order."""
        return unread(self._recorded, self._read)

    @property  # type: ignore[misc]  # object declares it as an attribute
    def __class__(self) -> Any:
        """`isinstance(recording, Config)` holds."""
        return type(self._recorded)

    def __getattr__(self, name: str) -> Any:
        config = object.__getattribute__(self, "_recorded")
        field = next((f for f in fields_of(type(config)).values() if f.name == name), None)
        if field is not None:
            return _recorded(getattr(config, name), self._read, (*self._path, field.key))
        own = getattr(type(config), name, None)
        if hasattr(BaseModel, name) or own is None or not hasattr(own, "__get__"):
            return getattr(config, name)
        return own.__get__(self, type(config))

    def __setattr__(self, name: str, value: Any) -> None:
        setattr(self._recorded, name, value)  # frozen sections refuse, as they always do

    def __eq__(self, other: object) -> bool:
        return bool(self._recorded == getattr(other, "_recorded", other))

    def __hash__(self) -> int:
        return hash(self._recorded)

    def __repr__(self) -> str:
        return f"Recording({self._recorded!r})"


def _recorded(value: Any, read: set[str], path: Path) -> Any:
    """The value as a recording where there are leaves below it, otherwise as it is and marked as read."""
    if is_section(type(value)):
        return Recording(value, _read=read, _path=path)
    if isinstance(value, Mapping) and _holds_sections(value.values()):
        return {key: _recorded(below, read, (*path, "*")) for key, below in value.items()}
    if isinstance(value, list | tuple) and _holds_sections(value):
        return type(value)(_recorded(item, read, (*path, "*")) for item in value)
    read.add(dotted(path))
    return value


def _holds_sections(values: Collection[Any]) -> bool:
    return any(is_section(type(value)) for value in values)


def unread(config: BaseModel, read: Collection[str]) -> list[str]:
    """Leaf keys of this config, with `*` as in `leaf_paths`, that are not among those `read`."""
    return [leaf for leaf in dict.fromkeys(map(dotted, _leaves(config, ()))) if leaf not in read]


def _leaves(value: Any, path: Path) -> Iterator[Path]:
    """The leaves that stand in a config; where a section is null or a dict is empty, that itself is the leaf."""
    inner: Sequence[Any] = ()
    if is_section(type(value)):
        for field in fields_of(type(value)).values():
            yield from _leaves(getattr(value, field.name), (*path, field.key))
        return
    if isinstance(value, Mapping):
        inner = tuple(value.values())
    elif isinstance(value, list | tuple):
        inner = value
    if not _holds_sections(inner):
        yield path
        return
    for below in inner:
        yield from _leaves(below, (*path, "*"))
