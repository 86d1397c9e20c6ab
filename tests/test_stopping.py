"""Signals: a flag between two steps, an exception at once, and the handlers as they were."""

import contextlib
import os
import signal
import subprocess
import sys
import threading
import time

import pytest

from ddcore.errors import Interrupted
from ddcore.files import alone, stopping
from ddcore.files.stopping import SIGNALS, at_once, heed

every_signal = pytest.mark.parametrize("number", SIGNALS, ids=lambda number: number.name)


@pytest.fixture(autouse=True)
def handlers():
    """As they were after each test."""
    before = {number: signal.getsignal(number) for number in SIGNALS}
    yield
    assert {number: signal.getsignal(number) for number in SIGNALS} == before
    assert stopping._heeding is None


def send(number: int) -> None:
    os.kill(os.getpid(), number)


@every_signal
def test_a_signal_is_heard_between_steps_and_answered_once(number):
    done = []

    def work():
        with heed() as stop:
            for step in range(1, 9):
                done.append(step)
                if step == 3:
                    send(number)
                if stop:
                    raise stop.interrupted(f"after {step}")

    with pytest.raises(Interrupted, match="after 3") as caught:
        work()
    assert done == [1, 2, 3]
    assert caught.value.number == number


@every_signal
def test_blocks_within_a_block_share_what_was_asked(number):
    with contextlib.suppress(Interrupted), heed() as outer:
        with heed() as inner:
            send(number)
            assert inner is outer
        assert outer, "not lost by the inner one, which ended without an answer"
        raise outer.interrupted("here")


@every_signal
def test_one_that_no_step_answered_is_sent_again(number):
    def work():
        with at_once():
            with heed():
                send(number)
            pytest.fail("went on")

    with pytest.raises(Interrupted, match=stopping.called(number)) as caught:
        work()
    assert caught.value.number == number


def test_a_failure_is_not_replaced_by_the_signal():
    def work():
        with at_once(), heed():
            send(signal.SIGINT)
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        work()


def test_the_first_signal_sent_twice_is_one_and_a_later_one_is_at_once(monkeypatch):
    def work():
        with at_once(), heed() as stop:
            send(signal.SIGTERM)
            send(signal.SIGTERM)
            assert stop
            monkeypatch.setattr(stopping, "ECHO", 0.0)
            send(signal.SIGTERM)
            pytest.fail("not at once")

    with pytest.raises(Interrupted, match="stopped by SIGTERM"):
        work()


@every_signal
def test_outside_of_a_block_a_signal_is_an_exception_that_no_handler_of_failures_takes(number):
    undone = []

    def work():
        with at_once():
            try:
                send(number)
            except Exception:
                pytest.fail("taken for a failure")
            finally:
                undone.append(number)

    with pytest.raises(Interrupted) as caught:
        work()
    assert undone == [caught.value.number] == [number]


@pytest.mark.parametrize("block", [heed, at_once])
def test_what_was_ignored_stays_so(block, monkeypatch):
    signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        with block() as stop:
            send(signal.SIGHUP)
            assert not stop
            assert signal.getsignal(signal.SIGHUP) is signal.SIG_IGN
    finally:
        signal.signal(signal.SIGHUP, signal.SIG_DFL)


@pytest.mark.parametrize("block", [heed, at_once])
def test_another_thread_hears_nothing_and_changes_nothing(block):
    found = []

    def work():
        with block() as stop:
            found.append(stop)

    thread = threading.Thread(target=work)
    with heed() as ours:
        thread.start()
        thread.join()
        assert len(found) == 1
        assert found[0] is not ours
        assert not found[0]


def test_waiting_for_another_process_can_be_stopped(tmp_path):
    held, release = threading.Event(), threading.Event()

    def hold():
        with alone(tmp_path / "lock"):
            held.set()
            release.wait(30)

    thread = threading.Thread(target=hold)
    thread.start()
    held.wait(30)
    threading.Timer(0.1, send, (signal.SIGTERM,)).start()
    try:
        with pytest.raises(Interrupted, match="lock"), alone(tmp_path / "lock"):
            pytest.fail("two at once")
    finally:
        release.set()
        thread.join()


def test_or_refused_without_waiting(tmp_path, refuses):
    with (
        alone(tmp_path / "lock"),
        refuses("is busy here"),
        alone(tmp_path / "lock", busy="the lock is busy here"),
    ):
        pytest.fail("two at once")
    with alone(tmp_path / "lock", busy="the lock is busy here"):
        pass
    assert not list(tmp_path.iterdir())


LONG = """
import sys, time
from ddcore.files.stopping import at_once
with at_once():
    print("begun", flush=True)
    time.sleep(60)
"""


def test_a_process_that_waits_ends_at_once():
    process = subprocess.Popen(
        [sys.executable, "-c", LONG], stdout=subprocess.PIPE, stderr=subprocess.PIPE, encoding="utf-8"
    )
    process.stdout.readline()
    began = time.monotonic()
    for _ in range(3):
        process.send_signal(signal.SIGTERM)
    err = process.communicate(timeout=30)[1]
    assert "Interrupted: stopped by SIGTERM" in err
    assert time.monotonic() - began < 10
