"""The page in a real browser: what a viewer sees, presses and hears. Screenshots go to TOUCHDOWN_SCREENSHOTS."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from actors.environments import describe
from actors.evaluation import fly_episodes
from actors.policy import Policy
from learner.dataset.dataset import open_dataset
from learner.keeping.policies import find_policy
from serve.service.fast_ingress import free_port
from serve.service.policies import Policies
from tests.actors import fake_environments  # noqa: F401 registers AimNear-v0 and Painted-v0
from tests.actors.examples import policy_for, stubborn_policy
from tests.serve.served import PATIENCE, valued, wait_for
from tests.serve.watching import saved, served

LANDER = "LunarLander-v3"
TOKEN = "a-token-of-no-worth~?"
SPEEDS = (0.2, 1, 4, 1)
"""Slow, as it is, fast, and as it is again."""
LONG = 5
"""A seed from which a lander that only burns its main engine flies for more than 300 steps."""

chromium = shutil.which("chromium") or shutil.which("chromium-browser")
pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(chromium is None, reason="needs chromium: apt-get install chromium"),
]

SHOWN = """window.shown = [];
new MutationObserver((changes) => changes.forEach(({ target, attributeName: name }) => {
    const flight = [...document.querySelectorAll(".flight")].indexOf(target);
    const who = flight >= 0 ? flight : target.id || target.className;
    window.shown.push(name ? `${who} ${name} ${target.getAttribute(name)}` : `${who}: ${target.textContent}`);
})).observe(document, { subtree: true, childList: true, attributeFilter: ["data-seed"] });"""
"""Notes all that the page shows, some of it for a moment: flights' seeds, and texts."""
TOLD = "window.shown.filter((text) => ['live: You fly', 'live: Policy flies'].includes(text)).at(-1)"
"""Who flies, as was announced last; the end of a flight may have been since."""

PHONE = {"viewport": {"width": 390, "height": 844}, "has_touch": True, "is_mobile": True, "device_scale_factor": 2}
NAMELESS = """[...document.querySelectorAll("button, select, input, canvas, [role=img]")]
    .filter((control) => control.checkVisibility())
    .filter((control) => !(control.textContent.trim() && control.matches("button")) && !control.ariaLabel
                         && ![...(control.labels ?? [])].some((label) => label.textContent.trim()))
    .map((control) => control.outerHTML)"""


WHITE = """(() => {
    const canvas = document.querySelector("canvas");
    const copy = new OffscreenCanvas(canvas.width, canvas.height).getContext("2d", { willReadFrequently: true });
    copy.drawImage(canvas, 0, 0);
    const { data } = copy.getImageData(0, 0, canvas.width, canvas.height);
    const pixels = new Uint32Array(data.buffer);
    return pixels.filter((pixel) => pixel === 0xffffffff).length / pixels.length;
})()"""
"""The share of the picture that is white."""


SPOT = """(frame) => {
    const copy = new OffscreenCanvas(12, 12).getContext("2d", { willReadFrequently: true });
    copy.drawImage(document.querySelectorAll(".seen canvas")[frame], 0, 0);
    const { data } = copy.getImageData(0, 3, 12, 1);
    return Array.from({ length: 12 }, (_, i) => data[4 * i]).indexOf(255);
}"""
"""The column of Painted's spot in a frame that the policy sees, 0: the newest."""


SIDES = "tests.actors.fake_environments:Sides-v0"
ANSWERS = """(() => {
    const press = (kind, code) => document.body.dispatchEvent(new KeyboardEvent(kind, { code, bubbles: true }));
    let held = null;
    const see = ({ type, observation }) => {
        if (type === "landed") return ["keydown", "keyup"].forEach((kind) => press(kind, "KeyN"));
        if (type !== "frame") return;
        const code = observation[0] < 0 ? "ArrowLeft" : "ArrowRight";
        if (code === held) return;
        if (held) press("keyup", held);
        press("keydown", held = code);
    };
    window.WebSocket = class extends WebSocket {
        constructor(...where) {
            super(...where);
            this.addEventListener("message", ({ data }) => see(JSON.parse(data)));
        }
    };
})()"""
"""A person at the keys who answers the side that is seen, and does not wait for the next flight."""


@pytest.fixture(scope="module")
def policies(tmp_path_factory: pytest.TempPathFactory) -> Policies:
    policies = {"up": stubborn_policy(LANDER, 2, version=153), "down": stubborn_policy(LANDER, 0)}
    policies |= {"cart": policy_for("CartPole-v1"), "pendulum": policy_for("Pendulum-v1")}
    aim = describe("AimNear-v0").policy_spec(hidden_sizes=())  # acts in the middle of its bounds, 3 and 5
    weights = {name: np.zeros(shape, np.float32) for name, shape in aim.weight_shapes().items()}
    policies |= {"aim": Policy(aim, weights), "valued": valued(LANDER, -1, -3, 1, 0)}
    network: dict[str, Any] = {"memory": "transformer", "memory_size": 8}
    returns = {"returns": {"least": -300.4, "mean": 0, "most": 280}}
    policies |= {"asked": policy_for(LANDER, seed=1, target_return=200.0, trained=returns, **network)}
    policies |= {"painted": policy_for("Painted-v0 | FrameStackObservation(stack_size=2)", hidden_sizes=())}
    return saved(tmp_path_factory.mktemp("policies"), policies)


@pytest.fixture(scope="module")
def at(policies: Policies) -> Iterator[str]:
    with served(policies) as address:
        yield address


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=chromium, args=["--no-sandbox"], timeout=1000 * PATIENCE)
        yield browser
        browser.close()


@pytest.fixture
def shots(tmp_path: Path) -> Path:
    directory = Path(os.environ.get("TOUCHDOWN_SCREENSHOTS") or tmp_path)
    directory.mkdir(parents=True, exist_ok=True)
    return directory


@pytest.fixture
def opened(browser: Any, at: str) -> Iterator[Any]:
    """Opens the page; at the end nothing may have gone wrong in it, and no other host been asked."""
    complaints: list[str] = []
    sent: list[dict[str, Any]] = []
    contexts = []

    def open_page(address: str = at, **options: Any) -> Any:
        context = browser.new_context(**{"color_scheme": "dark", "viewport": {"width": 1280, "height": 800}, **options})
        contexts.append(context)
        page = context.new_page()
        page.set_default_timeout(1000 * PATIENCE)
        page.add_init_script(SHOWN)
        page.on("pageerror", lambda error: complaints.append(str(error)))
        page.on("console", lambda said: said.type in ("error", "warning") and complaints.append(said.text))
        page.on("request", lambda request: address not in request.url and complaints.append(request.url))
        page.on("websocket", lambda socket: address not in socket.url and complaints.append(socket.url))
        page.on("websocket", lambda socket: socket.on("framesent", lambda text: sent.append(json.loads(text))))
        page.goto(f"http://{address}/")
        return page

    open_page.complaints = complaints  # type: ignore[attr-defined]
    open_page.sent = sent  # type: ignore[attr-defined]
    yield open_page
    for context in contexts:
        context.close()
    assert not complaints


def until(page: Any, expression: str) -> None:
    """Playwright's own way evaluates text in the page, which the page's security policy forbids."""
    wait_for(lambda: page.evaluate(expression), expression)


def flying(page: Any, count: int = 1) -> Any:
    until(page, f"document.querySelectorAll('.flight[data-frames]').length === {count}")
    return page


def shows(page: Any, text: str) -> None:
    """Wait until it is, or has been, shown."""
    until(page, f"window.shown.includes({json.dumps(text)})")


def fly_seed(page: Any, seed: int) -> None:
    page.get_by_label("Seed to fly from").fill(str(seed))
    page.evaluate("() => { window.shown = []; }")
    page.get_by_role("button", name="Fly it").click()
    for flight in range(page.locator(".flight").count()):
        shows(page, f"{flight} data-seed {seed}")
    page.evaluate("document.activeElement.blur()")


def frames(page: Any) -> int:
    return int(page.locator(".flight").first.get_attribute("data-frames"))


def await_frames(page: Any, more: int) -> None:
    """Wait until so many more have been shown in each flight."""
    page.evaluate("document.querySelectorAll('.flight').forEach((one) => (one.before = Number(one.dataset.frames)))")
    until(page, f"[...document.querySelectorAll('.flight')].every((one) => one.dataset.frames >= one.before + {more})")


def test_it_flies(opened: Any, shots: Path) -> None:
    page = flying(opened())
    fly_seed(page, LONG)
    await_frames(page, 100)
    until(page, "document.querySelector('.rate').textContent.endsWith(' fps')")
    page.screenshot(path=shots / "flying.png")
    assert page.locator(".version").inner_text() == "version 153"
    assert page.locator(".bars li").all_inner_texts()[2].split() == ["main", "engine", "↑", "100%"]
    assert page.locator(".bars .chosen").count() == 1
    names = page.locator(".readouts dt").all_inner_texts()
    assert names == ["Return", "Fuel", "Speed", "Angle", "Altitude", "Step"]
    colours = page.evaluate("""() => {
        const canvas = document.querySelector("canvas");
        const { data } = canvas.getContext("2d").getImageData(0, 0, canvas.width, canvas.height);
        return new Set(new Uint32Array(data.buffer)).size;
    }""")
    assert colours > 500, "the picture is not empty"


def test_landings_are_listed_and_announced(opened: Any) -> None:
    page = flying(opened())
    page.locator(".policy").select_option("down")
    fly_seed(page, 0)
    landing = page.locator(".list li.bad", has_text="seed 0 ")
    assert landing.inner_text().split()[:2] == ["−119", "crashed"]
    assert page.get_by_role("status").get_attribute("id") == "live"
    shows(page, "live: crashed, return -119, 52 steps")
    shows(page, "verdict: crashed −119")
    shows(page, "0 data-seed 1")


def test_each_policy_and_environment_has_landings_of_its_own(opened: Any, shots: Path) -> None:
    page = flying(opened())
    page.keyboard.press("f")
    page.locator(".policy").select_option("down")
    fly_seed(page, 0)
    page.wait_for_selector(".list li.bad:has-text('seed 0 ')")
    page.locator(".policy").select_option("cart")
    page.wait_for_selector(".list li.plain")
    page.screenshot(path=shots / "landings.png")
    assert page.locator(".list li.bad").count() == 0, "a lander's crash is no cart's"
    assert "landed" not in page.locator(".tally").inner_text()
    assert page.locator(".trend .dot.bad").count() == 0
    page.locator(".policy").select_option("down")
    page.wait_for_selector(".list li.bad:has-text('seed 0 ')")
    assert page.locator(".list li.plain").count() == 0


def test_an_environment_that_draws_itself_is_seen_as_it_draws(opened: Any, shots: Path) -> None:
    """CartPole's background is white, which nothing of the page's own is."""
    page = flying(opened())
    assert page.locator(".lines").is_hidden()
    assert page.locator(".landings h2").inner_text() == "Last landings"
    page.locator(".policy").select_option("cart")
    until(page, f"({WHITE}) > 0.3")
    assert page.locator(".landings h2").inner_text() == "Last episodes"
    page.screenshot(path=shots / "cart.png", full_page=True)
    await_frames(page, 60)  # of several episodes: the picture stays between them
    assert page.evaluate(WHITE) > 0.3
    for seed in range(12):  # while pictures of the episode before are still being decoded
        page.get_by_label("Seed to fly from").fill(str(seed))
        page.get_by_role("button", name="Fly it").click()
    await_frames(page, 30)
    assert page.evaluate(WHITE) > 0.3
    page.get_by_label("Show what it observes as lines").check()
    until(page, f"({WHITE}) < 0.05")
    page.get_by_label("Show what it observes as lines").uncheck()
    until(page, f"({WHITE}) > 0.3")
    page.locator(".policy").select_option("up")
    until(page, f"({WHITE}) < 0.05")
    assert page.locator(".lines").is_hidden()


def test_what_a_policy_sees_is_beside_what_is_drawn(opened: Any, shots: Path) -> None:
    """To the pixel, and with keys that do what the environment calls them."""
    page = flying(opened())
    page.locator(".policy").select_option("painted")
    page.wait_for_selector(".stage.seeing .seen canvas")
    captions = page.locator("figcaption:visible").all_inner_texts()
    assert captions == ["What the game draws", "What the policy sees: 12 × 12 in colour, 2 frames"]
    assert page.locator(".lines").is_hidden()
    assert page.locator(".caption").inner_text().startswith("Painted-v0 · seed ")
    page.keyboard.down("ArrowLeft")
    until(page, "document.querySelector('.bars .chosen')?.textContent.startsWith('move left')")
    until(page, f"({SPOT})(0) < 3")
    page.keyboard.up("ArrowLeft")
    page.keyboard.down("KeyX")
    until(page, f"({SPOT})(0) > 8")
    assert page.evaluate(f"({SPOT})(1) <= ({SPOT})(0)"), "the frame before is a step to the left of the newest"
    page.screenshot(path=shots / "painted.png", full_page=True)
    page.keyboard.up("KeyX")
    assert page.evaluate(NAMELESS) == []
    await_frames(page, 60)  # of several episodes: there is one figure all the time
    assert page.locator(".seen").count() == 1
    page.locator(".policy").select_option("up")
    page.wait_for_selector(".stage:not(.seeing)")
    assert page.locator(".seen").count() == 0


def test_an_impossible_seed_is_refused_in_words(opened: Any, shots: Path) -> None:
    page = flying(opened())
    fly_seed(page, 7)
    seed, said = page.get_by_label("Seed to fly from"), page.locator("#seed-wrong")
    for typed in ("-1", "2147483648", "1.5", "1e400", "e", ""):
        seed.fill("")
        seed.press_sequentially(typed)
        seed.press("Enter")
        until(page, "document.querySelector('#seed').ariaInvalid === 'true'")
        assert said.inner_text() == "A seed is a whole number from 0 to 2147483647.", typed
        page.screenshot(path=shots / "seed.png")
        page.get_by_role("button", name="New seed").click()
        assert said.is_hidden()
    fly_seed(page, 2147483647)
    page.keyboard.press("f")
    shows(page, "0 data-seed 0")  # the next


def test_pause_slow_motion_and_a_new_seed(opened: Any) -> None:
    page = flying(opened())
    fly_seed(page, LONG)
    page.keyboard.press("Space")
    assert page.locator("#pause").get_attribute("aria-pressed") == "true"
    page.get_by_role("button", name="Go on").click()
    await_frames(page, 10)
    page.keyboard.press("s")
    assert page.locator("#slow").get_attribute("aria-pressed") == "true"
    await_frames(page, 2)
    page.keyboard.press("s")
    page.keyboard.press("f")
    page.keyboard.press("f")
    commands = [*({"pause": pause} for pause in (True, False)), *({"speed": speed} for speed in SPEEDS)]
    wait_for(lambda: page.evaluate("true") and opened.sent[-6:] == commands)  # Playwright tells while it is asked
    page.keyboard.press("n")
    until(page, f"document.querySelector('.flight').dataset.seed !== '{LONG}'")
    seed = page.locator("#seed")
    seed.focus()
    page.keyboard.type("12s")
    assert page.locator("#slow").get_attribute("aria-pressed") == "false", "typing is no shortcut"


def test_taking_the_stick_and_handing_it_back(opened: Any, shots: Path) -> None:
    page = flying(opened())
    fly_seed(page, LONG)
    pilot = page.locator(".pilot-now")
    page.wait_for_selector(".flight[data-pilot=policy]")
    page.keyboard.down("ArrowLeft")
    page.wait_for_selector(".flight[data-pilot=you]")
    until(page, "document.querySelector('.bars .chosen')?.textContent.includes('left engine')")
    assert pilot.inner_text() == "You fly"
    page.keyboard.up("ArrowLeft")
    page.wait_for_selector(".flight[data-pilot=policy]")
    page.keyboard.press("t")
    until(page, "document.querySelector('.bars .chosen')?.textContent.includes('nothing')")
    until(page, f"{TOLD} === 'live: You fly'")
    page.keyboard.down("KeyW")
    until(page, "document.querySelector('.bars .chosen')?.textContent.includes('main engine')")
    page.screenshot(path=shots / "you-fly.png")
    page.keyboard.up("KeyW")
    page.get_by_role("button", name="Hand it back").click()
    until(page, f"{TOLD} === 'live: Policy flies'")
    assert pilot.inner_text() == "Policy flies"
    page.evaluate(
        """() => { window.pilots = []; const flight = document.querySelector('.flight');
        new MutationObserver(() => window.pilots.push(flight.dataset.pilot)).observe(flight, {
            attributeFilter: ['data-pilot'] }); }"""
    )
    page.get_by_role("button", name="right engine").press("Enter")  # for a moment, which a busy machine may not show
    until(page, "window.pilots.join() === 'you,policy'")
    page.get_by_label("Keyboard shortcuts").uncheck()
    page.keyboard.press("t")
    assert page.locator(".take").get_attribute("aria-pressed") == "false"


def test_side_by_side_and_other_policies(opened: Any, shots: Path) -> None:
    page = flying(opened(viewport={"width": 1440, "height": 900}))
    page.get_by_role("button", name="Side by side").click()
    flying(page, 2)
    fly_seed(page, LONG)
    assert [one.input_value() for one in page.locator(".policy").all()] == ["up", "down"]
    await_frames(page, 30)
    page.screenshot(path=shots / "side-by-side.png", full_page=True)
    page.locator(".take").nth(1).click()
    page.wait_for_selector(".flight:nth-child(2)[data-pilot=you]")
    assert page.locator(".flight").first.get_attribute("data-pilot") == "policy"
    page.locator(".policy").nth(1).select_option("cart")
    until(page, "document.querySelectorAll('.bars')[1].children.length === 2")
    page.locator(".policy").nth(1).select_option("pendulum")
    until(page, "document.querySelectorAll('.bars-title')[1].textContent === 'Mean action'")
    assert page.locator(".sticks").nth(1).is_hidden(), "nobody flies a pendulum by these keys"
    await_frames(page, 30)
    page.screenshot(path=shots / "pendulum.png", full_page=True)
    page.locator(".policy").nth(1).select_option("aim")
    until(page, "document.querySelectorAll('.bars')[1].querySelector('.value').textContent === '4.00'")
    until(page, "document.querySelectorAll('.bars')[1].querySelector('i').style.transform === 'scaleX(0)'")
    page.locator(".policy").nth(1).select_option("valued")
    until(page, "document.querySelectorAll('.bars-title')[1].textContent === 'Action values'")
    until(page, "document.querySelectorAll('.bars')[1].innerText.includes('−3.000')")
    values = page.locator(".bars").nth(1)
    assert values.locator(".value").all_inner_texts() == ["−1.000", "−3.000", "1.000", "0.000"]
    assert values.locator("i").evaluate_all("(bars) => bars.map((bar) => bar.style.transform)") == [
        *("scaleX(0.5)", "scaleX(0)", "scaleX(1)", "scaleX(0.75)"),
    ]
    assert "main engine" in values.locator(".chosen").inner_text()
    page.get_by_role("button", name="Side by side").click()
    flying(page, 1)


def test_a_return_is_asked_for_while_it_flies(opened: Any, shots: Path) -> None:
    page = flying(opened())
    assert page.locator(".course").is_hidden()
    page.locator(".policy").select_option("asked")
    page.wait_for_selector(".course:visible")
    assert page.get_by_label("Sample actions").is_checked()
    slider, output = page.get_by_label("Return asked for").locator("visible=true").last, page.locator(".course output")
    assert (slider.get_attribute("min"), slider.get_attribute("max"), slider.input_value()) == ("-301", "280", "200")
    fly_seed(page, LONG)
    until(page, "document.querySelector('.so-far').textContent !== '0'")
    slider.fill("-120")
    assert output.inner_text() == "−120"
    wait_for(lambda: page.evaluate("true") and opened.sent[-1] == {"target": -120}, "the wish is sent")
    await_frames(page, 30)
    until(page, "document.querySelector('.list li:not(.none)')?.textContent.includes('for −120 · ')")
    assert (output.inner_text(), slider.input_value()) == ("−120", "-120"), "and stays for the next episode"
    so_far, to_come = "document.querySelector('.so-far')", "document.querySelector('.to-come')"
    number = "(({ textContent }) => Number(textContent.replace('−', '-')))"
    until(page, f"Math.abs({number}({so_far}) + {number}({to_come}) + 120) <= 1")
    await_frames(page, 30)
    page.screenshot(path=shots / "asked.png", full_page=True)
    page.get_by_role("button", name="Side by side").click()
    flying(page, 2)
    assert [one.input_value() for one in page.locator(".policy").all()] == ["asked", "asked"]
    until(page, "[...document.querySelectorAll('.course output')].map((one) => one.textContent).join() === '−120,−210'")
    await_frames(page, 50)
    page.screenshot(path=shots / "asked-for-two.png", full_page=True)
    assert page.evaluate(NAMELESS) == []
    page.locator(".policy").nth(1).select_option("up")
    until(page, "document.querySelectorAll('.course')[1].hidden")


def test_flights_of_a_person_are_kept(opened: Any, tmp_path: Path, shots: Path) -> None:
    """By keys, of a cart, until it has fallen three times."""
    hand = "[...document.querySelectorAll('.list li')].filter((row) => row.textContent.trimEnd().endsWith('· you'))"
    with served(saved(tmp_path, {"cart": policy_for("CartPole-v1")}), record=tmp_path / "mine") as address:
        page = flying(opened(address))
        assert "from start to end are kept" in page.locator(".kept").inner_text()
        page.keyboard.press("f")
        page.keyboard.press("t")
        for i in range(3):
            page.keyboard.down(("ArrowLeft", "ArrowRight")[i % 2])
            until(page, f"{hand}.length > {i}")
            page.keyboard.up(("ArrowLeft", "ArrowRight")[i % 2])
        page.keyboard.press("Space")
        until(page, f"{hand}.length === parseInt(document.querySelector('.kept').textContent)")
        page.screenshot(path=shots / "kept.png", full_page=True)
        returns = page.evaluate(f"{hand}.map((row) => Number(row.querySelector('.total').textContent)).reverse()")
        page.context.close()
    dataset = open_dataset(tmp_path / "mine")
    assert dataset.num_episodes >= 3
    assert dataset.returns.tolist() == returns
    assert dataset.sources == [{"person": True}]
    assert {dataset.part(i).actions[-1] for i in range(3)} == {0, 1}


def test_what_a_person_flew_is_cloned_and_flies(opened: Any, tmp_path: Path) -> None:
    """Twenty flights become a dataset, from which behaviour cloning learns to answer what the person answered."""
    policies = saved(tmp_path, {"theirs": policy_for(SIDES)}, [SIDES.partition(":")[0]])
    with served(policies, record=tmp_path / "mine") as address:
        page = opened(address)
        page.add_init_script(ANSWERS)
        page.reload()
        flying(page)
        page.keyboard.press("t")
        until(page, "parseInt(document.querySelector('.kept').textContent) >= 20")
        page.context.close()
    options = ["--preset", "bc", "--dataset", str(tmp_path / "mine"), "--max-updates", "4", "--evaluate-episodes", "0"]
    options += ["--no-video", "--env", SIDES]
    command = [sys.executable, "-m", "learner.train", *options, "--run-dir", str(tmp_path / "cloned")]
    done = subprocess.run(command, capture_output=True, text=True, timeout=PATIENCE, check=False)
    assert done.returncode == 0, done.stderr
    theirs = open_dataset(tmp_path / "mine").returns
    mine, _, _ = fly_episodes(find_policy(tmp_path / "cloned"), range(50))
    assert len(theirs) >= 20
    assert theirs.mean() > 8, "chance earns 6 of 12"
    assert mine.mean() > theirs.mean() - 1


def test_a_newer_version_shows(opened: Any, policies: Policies) -> None:
    page = flying(opened())
    source = Path(policies["up"].source)
    stubborn_policy(LANDER, 2, version=160).save(source)
    policies.refresh()
    until(page, "document.querySelector('.version').textContent === 'version 160'")
    (source / "policy.safetensors").write_bytes(b"broken")
    policies.refresh()
    page.wait_for_selector(".refused:visible")
    assert "A newer version is not flown: " in page.locator(".refused").inner_text()
    stubborn_policy(LANDER, 2, version=153).save(source)
    policies.refresh()


@pytest.mark.parametrize("scheme", ["dark", "light"])
def test_a_phone(scheme: str, opened: Any, shots: Path) -> None:
    page = flying(opened(color_scheme=scheme, **PHONE))
    fly_seed(page, LONG)
    assert page.evaluate("document.documentElement.scrollWidth") <= 390, "no scrolling sideways"
    button = page.get_by_role("button", name="right engine")
    box = button.bounding_box()
    assert min(box["width"], box["height"]) >= 44
    page.mouse.move(box["x"] + box["width"] / 2, box["y"] + box["height"] / 2)
    page.mouse.down()
    page.wait_for_selector(".flight[data-pilot=you]")
    page.screenshot(path=shots / f"phone-{scheme}.png", full_page=True)
    page.mouse.up()
    page.wait_for_selector(".flight[data-pilot=policy]")
    until(page, "((canvas) => canvas.width / canvas.clientWidth === 2)(document.querySelector('canvas'))")


def test_day_follows_night_and_everything_has_a_name(opened: Any, shots: Path) -> None:
    page = flying(opened())
    page.get_by_role("button", name="Side by side").click()
    flying(page, 2)
    night = page.evaluate("getComputedStyle(document.body).backgroundColor")
    page.emulate_media(color_scheme="light", reduced_motion="reduce")
    assert page.evaluate("getComputedStyle(document.body).backgroundColor") != night
    await_frames(page, 10)
    page.screenshot(path=shots / "light.png", full_page=True)
    assert page.evaluate(NAMELESS) == []
    assert page.locator("[aria-live=polite]").count() == 1
    page.keyboard.press("Tab")
    assert page.evaluate("getComputedStyle(document.activeElement).outlineStyle") == "solid", "the focus can be seen"


def test_a_token_is_asked_for_and_kept_for_the_tab(opened: Any, policies: Policies, shots: Path) -> None:
    with served(policies, token=TOKEN) as address:
        page = opened(address)
        page.get_by_label("Bearer token").fill("not-this-one-either")
        page.screenshot(path=shots / "token.png")
        page.get_by_role("button", name="Continue").click()
        until(page, "document.querySelector('#token-wrong').textContent === 'That is not the token.'")
        page.get_by_label("Bearer token").fill(TOKEN)
        page.keyboard.press("Enter")
        flying(page)
        page.reload()
        flying(page)
        page.context.close()
    refused = [text for text in opened.complaints if "401" in text]
    assert refused == opened.complaints, "Chromium itself logs answers of 401"
    opened.complaints.clear()


def test_it_comes_back_when_the_server_does(opened: Any, policies: Policies) -> None:
    port = free_port()  # which nobody else gets in between
    with served(policies, port=port) as address:
        page = flying(opened(address))
        page.get_by_role("button", name="Pause").click()
    page.wait_for_selector("#connection[data-state=away]")
    assert "connection lost; trying again in" in page.locator("#connection").inner_text()
    with served(policies, port=port):
        page.wait_for_selector("#connection[data-state=open]")
        before = frames(page)
        page.get_by_role("button", name="Go on").click()
        until(page, f"document.querySelector('.flight').dataset.frames > {before + 5}")
        page.context.close()
    assert all("net::ERR_" in text or "WebSocket" in text for text in opened.complaints)
    opened.complaints.clear()
