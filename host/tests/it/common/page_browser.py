"""A user at the API page of a host, with a keyboard only, on a desk and on a phone, by day and by night.
Prints what does not fit on each:

    page_browser.py URL TOKEN [FOLDER]

FOLDER: where to put a picture of each page.
"""

import base64
import itertools
import json
import sys

from chromium import Browser

WIDTHS = [1100, 390]
SCHEMES = ["light", "dark"]
# Codes of keys, as the browser names them.
KEYS = {"Tab": 9, "Enter": 13}
# More than the steps from the start of the page to the field for the token.
MOST_TABS = 20

# Waits until an expression is true.
WHEN = """new Promise(resolve => {
    const look = () => (%s) ? resolve(true) : setTimeout(look, 10);
    look();
})"""

# Texts and edges of fields with too little contrast to what is behind them (WCAG 2.2, 1.4.3 and 1.4.11), and
# whatever is beyond the right edge of the window.
MISFITS = """(() => {
  const channels = color => color.match(/[0-9.]+/g).map(Number);
  const light = color => {
    const [red, green, blue] = channels(color).map(value => value / 255)
      .map(value => value <= 0.04045 ? value / 12.92 : ((value + 0.055) / 1.055) ** 2.4);
    return 0.2126 * red + 0.7152 * green + 0.0722 * blue;
  };
  const contrast = (one, other) => {
    const [dark, bright] = [light(one), light(other)].sort((a, b) => a - b);
    return (bright + 0.05) / (dark + 0.05);
  };
  const behind = element => {
    for (let place = element; place; place = place.parentElement) {
      const color = getComputedStyle(place).backgroundColor;
      if (channels(color)[3] !== 0) return color;
    }
    return "rgb(255, 255, 255)";
  };
  const {clientWidth, scrollWidth} = document.documentElement;
  const found = [];
  const checked = new Set();
  const check = (kind, example, color, ground, least) => {
    const pair = `${kind}: ${color} on ${ground}`;
    const ratio = contrast(color, ground);
    if (ratio < least && !checked.has(pair)) found.push(`${pair} is ${ratio.toFixed(2)} to 1: ${example}`);
    checked.add(pair);
  };
  const visible = element => element.checkVisibility({visibilityProperty: true, opacityProperty: true});
  for (const element of document.querySelectorAll("body *")) {
    if (!visible(element)) continue;
    const own = [...element.childNodes].filter(node => node.nodeType === Node.TEXT_NODE);
    const text = own.map(node => node.data).join("").trim() || element.value || "";
    if (text) check("text", text.slice(0, 40), getComputedStyle(element).color, behind(element), 4.5);
    if (element.matches("input, textarea")) {
      const {borderTopColor} = getComputedStyle(element);
      check("edge of a field", element.id, borderTopColor, behind(element.parentElement), 3);
      const {color} = getComputedStyle(element, "::placeholder");
      if (element.placeholder) check("hint", element.placeholder, color, behind(element), 4.5);
    }
    const {right} = element.getBoundingClientRect();
    const beyond = `ends at ${right} of ${clientWidth}: ${element.outerHTML.slice(0, 60)}`;
    if (right > clientWidth) found.push(beyond);
  }
  if (scrollWidth > clientWidth) found.push(`the page is ${scrollWidth} wide in ${clientWidth}`);
  return found;
})()"""

FOCUSED = """(() => {
  const {outlineStyle, outlineColor} = getComputedStyle(document.activeElement);
  return [document.activeElement.id, outlineStyle, outlineColor];
})()"""


def press(browser, key):
    for kind in ["rawKeyDown", "char", "keyUp"]:
        text = {"text": "\r"} if key == "Enter" and kind == "char" else {}
        if kind == "char" and not text:
            continue
        browser.call("Input.dispatchKeyEvent", type=kind, key=key, code=key,
                     windowsVirtualKeyCode=KEYS[key], **text)


def tab_to(browser, id):
    """Returns the outline of an element that is reached by the keyboard."""
    for _ in range(MOST_TABS):
        press(browser, "Tab")
        focused, *outline = browser.run(FOCUSED)
        if focused == id:
            return outline
    return None


def look(browser, url, token, width, scheme):
    browser.call("Emulation.setDeviceMetricsOverride", width=width, height=900, deviceScaleFactor=1,
                 mobile=width < 500)
    browser.call("Emulation.setEmulatedMedia",
                 features=[{"name": "prefers-color-scheme", "value": scheme}])
    browser.go(url)
    browser.run(WHEN % "document.querySelector('.operation')")
    outline = tab_to(browser, "token")
    browser.call("Input.insertText", text=token)
    press(browser, "Enter")
    browser.run(WHEN % "document.getElementById('caller').textContent.startsWith('operator')")
    misfits = browser.run(MISFITS)
    # Each operation in full, and the answer to one.
    browser.run("document.querySelectorAll('.operation').forEach(card => card.open = true)")
    browser.run(WHEN % "!document.querySelector('.operation:not(:has(form))')")
    browser.run("""[...document.querySelectorAll('.operation:has(.get) form')]
        .find(form => form.checkValidity()).requestSubmit()""")
    browser.run(WHEN % "document.querySelector('.output pre')")
    return {"width": width, "scheme": scheme, "outline": outline, "misfits": misfits + browser.run(MISFITS)}


def main():
    url, token, *folders = sys.argv[1:]
    seen = []
    with Browser() as browser:
        for width, scheme in itertools.product(WIDTHS, SCHEMES):
            seen.append(look(browser, url, token, width, scheme))
            for folder in folders:
                picture = browser.call("Page.captureScreenshot")["data"]
                with open(f"{folder}/{width}-{scheme}.png", "wb") as file:
                    file.write(base64.b64decode(picture))
    print(json.dumps(seen))


main()
