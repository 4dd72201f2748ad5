"""A user at a browser signs in at a host, and prints what the browser sees:

    oidc_browser.py URL USER [KEY]

KEY: the SHA-256 of the public key of the host's certificate, which the browser then trusts.
"""

import json
import sys

from chromium import Browser

SEND = """fetch(%s, {method: %s, headers: Object.assign(
    {"content-type": "application/json"}, %s), body: %s}).then(reply => reply.status)"""


def send(browser, method, path, headers, body):
    arguments = tuple(json.dumps(argument) for argument in (path, method, headers))
    return browser.run(SEND % (*arguments, json.dumps(json.dumps(body)) if body else "undefined"))


def main():
    url, user, *keys = sys.argv[1:]
    with Browser(*("--ignore-certificate-errors-spki-list=" + key for key in keys)) as browser:
        browser.go(url + "/auth/sign-in?back=/auth/me")
        at_provider = browser.run("location.origin")
        browser.run("setTimeout(() => document.querySelector('button[value=%s]').click())" % user)
        browser.loaded()
        text = browser.run("document.body.innerText")
        me = json.loads(text)
        body = {"subject": "ben", "roles": ["clerk"]}
        csrf = {"kontor-csrf": me["csrf"]}
        print(json.dumps({
            "at_provider": at_provider,
            "back_at": browser.run("location.pathname"),
            "me": me,
            "cookies": browser.call("Network.getCookies")["cookies"],
            "seen_by_scripts": browser.run("document.cookie"),
            "without_csrf": send(browser, "POST", "/admin/tokens", {}, body),
            "with_wrong_csrf": send(browser, "POST", "/admin/tokens", {"kontor-csrf": "x"}, body),
            "with_csrf": send(browser, "POST", "/admin/tokens", csrf, body),
            "sign_out": send(browser, "POST", "/auth/sign-out", csrf, None),
            "after": browser.run("fetch('/auth/me').then(reply => reply.json())"),
            "cookies_after": browser.call("Network.getCookies")["cookies"],
        }))


main()
