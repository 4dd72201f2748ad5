"""What no schema says about the values in a request to Kontor. schemathesis calls it before each request."""

import re

import schemathesis

LARGEST = 2**63 - 1
# As it is, or as a string in quotes, which is the same key.
KEY = re.compile(r'[!#-~][!-~]{0,254}|"([ !#-\[\]-~]|\\["\\]){1,255}"')
UNKNOWN = "x-schemathesis-unknown-property"
sent = set()


def is_position(value):
    return bool(re.fullmatch("[0-9]{1,19}", str(value))) and int(value) <= LARGEST


@schemathesis.hook
def filter_case(context, case):
    # HTTP has a recipient ignore headers that it does not know (RFC 9110, 5.1).
    return UNKNOWN not in (case.headers or {})


@schemathesis.hook
def before_call(context, case, kwargs):
    headers, query = case.headers, case.query
    # A position comes from an earlier reply. The host waits for one that the log is not at yet: 504.
    for name in ("Kontor-Position", "Last-Event-ID"):
        if headers and is_position(headers.get(name)):
            headers[name] = "0"
    if case.operation.path == "/events" and query and is_position(query.get("after")):
        query["after"] = 0
    # A key is that of one command. Another one with it is refused: 422.
    key = headers.get("Idempotency-Key") if headers else None
    if key and KEY.fullmatch(key):
        if key.strip('"') in sent:
            headers["Idempotency-Key"] = f"key-{len(sent)}"
        sent.add(headers["Idempotency-Key"].strip('"'))
    # The phase `coverage` writes letters and digits into headers only. It sends an empty text where a pattern
    # needs other characters.
    for name in ("If-Match", "If-None-Match"):
        if headers and headers.get(name) == "":
            del headers[name]
