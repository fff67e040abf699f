"""Formats of strings as patterns. Those that are not here say nothing about the text, as
JSON Schema has it for formats that a validator does not know."""

_YEAR = "(19|20)[0-9]{2}"
_DATE = (
    f"{_YEAR}-((0[1-9]|1[0-2])-(0[1-9]|1[0-9]|2[0-8])|(0[13-9]|1[0-2])-(29|30)|(0[13578]|1[02])-31)"
)
_CLOCK = "([01][0-9]|2[0-3]):[0-5][0-9]"
_TIME = rf"{_CLOCK}:[0-5][0-9](\.[0-9]{{1,6}})?(Z|[+-]{_CLOCK})"
_HOST = "[a-z][a-z0-9]{0,30}(-[a-z0-9]{1,10})?"
_HOSTNAME = rf"{_HOST}(\.{_HOST}){{1,3}}"
_BYTE = "(25[0-5]|2[0-4][0-9]|1[0-9]{2}|[1-9]?[0-9])"
_URI = rf"https?://{_HOSTNAME}(/[A-Za-z0-9._~-]{{0,40}}){{0,6}}"

FORMATS: dict[str, str] = {
    "date": _DATE,
    "time": _TIME,
    "date-time": f"{_DATE}T{_TIME}",
    "duration": "P([1-9][0-9]{0,3}D(T[1-9][0-9]{0,3}H)?|T[1-9][0-9]{0,3}[HMS])",
    "uuid": "[0-9a-f]{8}-[0-9a-f]{4}-[1-5][0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}",
    "email": rf"[A-Za-z][A-Za-z0-9_+-]{{0,30}}(\.[A-Za-z0-9]{{1,20}})?@{_HOSTNAME}",
    "hostname": _HOSTNAME,
    "ipv4": rf"{_BYTE}(\.{_BYTE}){{3}}",
    "ipv6": "[0-9a-f]{1,4}(:[0-9a-f]{1,4}){7}",
    "uri": _URI,
    "url": _URI,
}
