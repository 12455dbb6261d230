"""A headless Chromium, where the machine has one."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from selenium import webdriver

MISSING = "Chromium is not installed: run `apt-get install chromium chromium-driver`"


class Browser:
    """One page, opened from a file, and everything that went wrong on it."""

    def __init__(self, driver: Any) -> None:
        self.driver = driver

    def open(self, file: Path) -> None:
        self.driver.get(file.resolve().as_uri())

    def find(self, selector: str) -> Any:
        return self.driver.find_element("css selector", selector)

    def all(self, selector: str) -> list[Any]:
        found: list[Any] = self.driver.find_elements("css selector", selector)
        return found

    def texts(self, selector: str) -> list[str]:
        return [str(one.get_property("textContent")) for one in self.all(selector)]

    def run(self, script: str) -> Any:
        return self.driver.execute_script(script)

    def keys(self, *keys: str) -> None:
        """Press keys where the keyboard is."""
        for key in keys:
            self.driver.switch_to.active_element.send_keys(key)

    def control(self, text: str) -> Any:
        """The input of the label that reads so."""
        for label in self.all(".controls label"):
            if label.text.strip() == text:
                return label.find_element("css selector", "input")
        raise AssertionError(f"there is no control {text!r}")

    def errors(self) -> list[str]:
        """What the console complained about since the last call."""
        return [str(entry["message"]) for entry in self.driver.get_log("browser")]

    def requests(self) -> list[str]:
        """The addresses that the page asked for since the last call."""
        events = [
            json.loads(entry["message"])["message"] for entry in self.driver.get_log("performance")
        ]
        return [
            str(event["params"]["request"]["url"])
            for event in events
            if event["method"] == "Network.requestWillBeSent"
        ]

    def resize(self, width: int, height: int = 900) -> None:
        self.driver.execute_cdp_cmd(
            "Emulation.setDeviceMetricsOverride",
            {"width": width, "height": height, "deviceScaleFactor": 1, "mobile": width < 600},
        )


def is_installed() -> bool:
    """Whether Chromium and its driver are there."""
    return None not in (shutil.which("chromium"), shutil.which("chromedriver"))


@contextmanager
def running_browser() -> Iterator[Browser]:
    """Chromium without a window."""
    options = webdriver.ChromeOptions()
    options.binary_location = str(shutil.which("chromium"))
    for argument in ("--headless=new", "--no-sandbox", "--disable-dev-shm-usage", "--disable-gpu"):
        options.add_argument(argument)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL", "performance": "ALL"})
    service = webdriver.ChromeService(str(shutil.which("chromedriver")))
    driver = webdriver.Chrome(options=options, service=service)
    try:
        driver.execute_cdp_cmd("Network.enable", {})
        browser = Browser(driver)
        browser.resize(1280)
        yield browser
    finally:
        driver.quit()
