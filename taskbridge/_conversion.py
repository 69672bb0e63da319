"""Conversion of the models to JSON-compatible dictionaries and back."""

from __future__ import annotations

from collections.abc import Mapping
from threading import Lock
from typing import TYPE_CHECKING, Any, ClassVar, Final, Self

from taskbridge._fork import renew_after_fork
from taskbridge.errors import ContractError, InvalidInput, printable

if TYPE_CHECKING:
    from pydantic import ConfigDict, TypeAdapter


class Model:
    """Conversion of the models to dictionaries and back, for a database or another process."""

    __slots__ = ()
    __pydantic_config__: ClassVar[ConfigDict] = {
        "extra": "forbid",
        "hide_input_in_errors": True,
        "json_schema_serialization_defaults_required": True,
        "use_attribute_docstrings": True,
    }

    def to_dict(self) -> dict[str, Any]:
        """Return all fields as a JSON-compatible dictionary.

        Times become ISO 8601 text and tuples become lists; the vendor's data stays as it is, except that lone
        surrogates, which no encoding has, become question marks. The dictionary includes the links of files and `raw`,
        which `repr` leaves out.

        Raises:
            ContractError: The provider cannot read a page or field of a result, or put something there that is no JSON.
        """
        try:
            return _dump(_adapter(type(self)), self)
        except ValueError as error:  # pydantic's, also in place of an error of ours
            problem = printable(str(error), 300)
        raise ContractError(f"{type(self).__name__}.to_dict: {problem}")

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Self:
        """Return the object that `to_dict` converted.

        Args:
            values: The fields, with times as ISO 8601 text; missing optional fields get their defaults.

        Raises:
            InvalidInput: A field is unknown, missing or of the wrong type, or a time has no time zone; the message
                names the field.
        """
        from pydantic import ValidationError  # noqa: PLC0415  # only for to_dict and from_dict

        try:
            model: Self = _adapter(cls).validate_python(dict(values))
        except ValidationError as error:
            found = error.errors(include_input=False, include_url=False, include_context=False)
        else:
            return model
        problems = [f"{'.'.join(map(str, each['loc']))}: {each['msg']}" for each in found]
        # Raised here, not above, so that pydantic's error, which holds the values, is not its context.
        raise InvalidInput(f"{cls.__name__}.from_dict: {printable('; '.join(problems[:5]), 500)}")

    @classmethod
    def json_schema(cls) -> dict[str, Any]:
        """Return the JSON Schema of the dictionary that `to_dict` returns."""
        return _adapter(cls).json_schema(mode="serialization")


def _dump(adapter: TypeAdapter[Any], model: Model) -> dict[str, Any]:
    try:
        values: dict[str, Any] = adapter.dump_python(model, mode="json")
    except UnicodeEncodeError:
        from pydantic_core import to_jsonable_python  # noqa: PLC0415  # only for to_dict and from_dict

        values = to_jsonable_python(_without_surrogates(adapter.dump_python(model)), inf_nan_mode="null")
    return values


def _without_surrogates(value: Any) -> Any:
    if isinstance(value, str):
        return value.encode(errors="replace").decode()
    if isinstance(value, Mapping):
        pairs: Mapping[Any, Any] = value  # pyright: ignore[reportUnknownVariableType]  # any JSON
        repaired: dict[Any, Any] = {}
        for key, each in pairs.items():
            name = _without_surrogates(key)
            while name in repaired:  # two names may differ only in a surrogate
                name += "?"
            repaired[name] = _without_surrogates(each)
        return repaired
    if isinstance(value, list | tuple):
        items: list[Any] | tuple[Any, ...] = value  # pyright: ignore[reportUnknownVariableType]  # any JSON
        return [_without_surrogates(each) for each in items]
    return value


class _Adapters:
    """pydantic's converters of the models, each built when it is first needed."""

    def __init__(self) -> None:
        self._built: dict[type, TypeAdapter[Any]] = {}
        renew_after_fork(self, _Adapters._begin_process)

    def _begin_process(self) -> None:
        # pydantic parses the source of a model, which CPython 3.11 cannot do in two threads at a time.
        self._lock = Lock()

    def of(self, model: type) -> TypeAdapter[Any]:
        """Return the converter of a model."""
        from pydantic import TypeAdapter  # noqa: PLC0415  # slow to import, and rarely needed

        found = self._built.get(model)
        if found is None:
            with self._lock:
                found = self._built[model] = self._built.get(model) or TypeAdapter(model)
        return found


_adapter: Final = _Adapters().of
