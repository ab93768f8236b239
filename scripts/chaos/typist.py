"""Somebody who types into one document all the time, knows what must stand in it, and judges every answer."""

import random
import threading
import time
from collections import Counter, deque
from dataclasses import dataclass, field

import grpc
from client import Refusal, at_bytes, refusal
from pie.v1 import pie_pb2 as pb
from pie.v1 import pie_pb2_grpc
from world import OPTIONS

EDIT, COMPLETE, READ = 2.0, 4.0, 2.0
# A call's deadline is the client library's to keep; beyond this much more, something else held it.
MARGIN = 2.0
PAUSE = 0.15
LONG, LONGER = 900, 1200
LINES = ("let x = y + 1;\n", "fn f() {}\n", "// 日本語 🙂\n", "return a;\n")
# The call may have been heard, though its answer was not.
UNHEARD = ("ROUTER_UNREACHABLE", "NOT_REPLICATED", "DEADLINE_PASSED", None)
# Of calls that may be made again as they are.
PASSING = (grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.RESOURCE_EXHAUSTED)


@dataclass
class Verdicts:
    """What was seen since somebody last looked."""

    calls: int = 0
    refusals: Counter = field(default_factory=Counter)
    # Documents that the pool had no more, and that were opened again.
    gone: int = 0
    # How long nothing went well, each time, from the call that was refused to the end of the next round that was not.
    away: list[float] = field(default_factory=list)
    # Answers that cannot be: acknowledged edits that are missing, and all other texts.
    lost: list[str] = field(default_factory=list)
    wrong: list[str] = field(default_factory=list)
    # Calls that ended behind their deadline.
    late: list[str] = field(default_factory=list)


class Refused(Exception):
    def __init__(self, refusal: Refusal):
        super().__init__(f"{refusal.code.name} {refusal.reason}: {refusal.message}")
        self.refusal = refusal


class Typist(threading.Thread):
    def __init__(self, number: int, addresses: list[str], seed: int, documented: set[str]):
        super().__init__(daemon=True)
        self.session, self._choose = f"typist-{number}.rs", random.Random(f"{seed}/{number}")
        self._channels = [grpc.insecure_channel(address, options=OPTIONS) for address in addresses]
        self._home = self._at = number % len(addresses)
        self._documented = documented
        self._over = threading.Event()
        self._turn = threading.Lock()
        self._verdicts = Verdicts()
        # The end of the first round that went well since the last one that did not, or since somebody asked.
        self._well: float | None = None
        self._asked = 0.0
        # Since when calls are refused.
        self._refused_since: float | None = None
        self.said = ""
        # What the document must be: this text at this revision, or what an edit of it makes whose answer was lost: it may come late.
        self._text = "".join(self._choose.choices(LINES, k=30))
        self._revision = 0
        self._unheard: list[str] = []
        self._in_doubt = False
        self._before: deque[str] = deque(maxlen=1000)

    # For those who look on.

    def ask(self) -> None:
        """From now on, rounds are looked at anew."""
        with self._turn:
            self._well, self._asked = None, time.monotonic()

    def well(self) -> float | None:
        """Since when all goes well."""
        with self._turn:
            return self._well

    def take(self) -> Verdicts:
        with self._turn:
            taken, self._verdicts = self._verdicts, Verdicts()
        return taken

    def end(self) -> None:
        self._over.set()
        self.join(30.0)
        for channel in self._channels:
            channel.close()

    # The work.

    def run(self) -> None:
        opened = False
        while not self._over.is_set():
            began = time.monotonic()
            try:
                if not opened:
                    self._open()
                    opened = True
                self._round()
            except Refused as refused:
                self._refused_since = self._refused_since or began
                self._refused(refused)
            else:
                now = time.monotonic()
                with self._turn:
                    if self._well is None and began >= self._asked:
                        self._well = now
                    if self._refused_since is not None:
                        self._verdicts.away.append(now - self._refused_since)
                self._refused_since = None
            self._over.wait(PAUSE)

    def _round(self) -> None:
        # Clients are spread over the routers, whatever drove them away.
        if self._choose.random() < 0.1:
            self._at = self._home
        self._edit()
        self._complete()
        if self._choose.random() < 0.3:
            self._read()

    def _open(self) -> None:
        text = self._unheard[-1] if self._in_doubt else self._text
        request = pb.OpenSessionRequest(session=self.session, text=text)
        answer = self._call("OpenSession", request, EDIT)
        self._know(text, answer.revision)

    def _know(self, text: str, revision: int) -> None:
        self._before.append(self._text)
        self._text, self._revision, self._unheard, self._in_doubt = text, revision, [], False

    def _edit(self) -> None:
        if self._in_doubt:
            self._settle()
        text = self._text
        at = self._choose.randrange(len(text) + 1)
        cut = self._choose.randrange(40) if len(text) > LONG else self._choose.choice((0, 0, 0, 3))
        inserted = "" if len(text) > LONGER else self._choose.choice(LINES)
        start, end = len(text[:at].encode()), len(text[: at + cut].encode())
        wanted = text[:at] + inserted + text[at + cut :]
        request = pb.ApplyEditsRequest(session=self.session, base_revision=self._revision)
        request.text.edits.append(at_bytes(start, end, inserted))
        try:
            answer = self._call("ApplyEdits", request, EDIT)
        except Refused as refused:
            if refused.refusal.reason in UNHEARD:
                self._unheard.append(wanted)
                self._in_doubt = True
            raise
        # What changes nothing makes no revision.
        if answer.revision < self._revision + (wanted != text):
            self._wrong(f"the edit of revision {self._revision} made revision {answer.revision}")
        self._know(wanted, answer.revision)

    def _complete(self) -> None:
        request = pb.CompleteRequest(session=self.session, max_tokens=3, revision=self._revision)
        message = self._call("Complete", request, COMPLETE)
        if message.revision != self._revision:
            self._wrong(f"a completion of revision {self._revision} continues revision {message.revision}")

    def _read(self) -> None:
        """The document is read: it must be the twin's."""
        held = self._call("GetSession", pb.GetSessionRequest(session=self.session, content=True), READ)
        self._judge(held.text, held.session.revision)

    def _settle(self) -> None:
        """An answer was lost, or the pool knows another revision: what stands in the document decides."""
        held = self._call("GetSession", pb.GetSessionRequest(session=self.session, content=True), READ)
        self._in_doubt = False
        self._judge(held.text, held.session.revision)

    def _judge(self, text: str, revision: int) -> None:
        if text == self._text:
            if revision != self._revision:
                self._wrong(f"the text of revision {self._revision} is said to be of revision {revision}")
            self._revision = revision
            return
        if text in self._unheard:
            self._know(text, revision)
            return
        which = f"revision {revision} instead of {self._revision}"
        if text in self._before:
            missing = len(self._before) - list(self._before).index(text)
            self._note("lost", f"{which}: {missing} acknowledged edits are missing")
        else:
            self._wrong(f"{which} is a text that never was: {text[:60]!r}")
        # The client's own text is the truth.
        self._open()

    # Calls.

    def _call(self, method: str, request, deadline: float):
        stub = pie_pb2_grpc.PoolStub(self._channels[self._at])
        began = time.monotonic()
        try:
            answer = getattr(stub, method)(request, timeout=deadline)
            if method == "Complete":
                answer = list(answer)[-1]
        except grpc.RpcError as error:
            raise Refused(refusal(error)) from None
        finally:
            took = time.monotonic() - began
            with self._turn:
                self._verdicts.calls += 1
            if took > deadline + MARGIN:
                self._note("late", f"{method} took {took:.1f} s, its deadline was {deadline:.0f} s")
        return answer

    def _refused(self, refused: Refused) -> None:
        code, reason = refused.refusal.code, refused.refusal.reason
        self.said = str(refused)
        with self._turn:
            self._verdicts.refusals[reason or code.name] += 1
            self._well = None
        if reason == "SESSION_UNKNOWN":
            with self._turn:
                self._verdicts.gone += 1
            self._try(self._open)
        elif reason == "REVISION_MISMATCH":
            self._try(self._settle)
        elif code == grpc.StatusCode.DEADLINE_EXCEEDED or (code in PASSING and (reason is None or reason in self._documented)):
            # Another router may know more.
            if reason is None or self._choose.random() < 0.3:
                self._at = (self._at + 1) % len(self._channels)
        else:
            self._wrong(f"a refusal that no client can do anything about: {refused}")

    def _try(self, what) -> None:
        try:
            what()
        except Refused as again:
            self.said = str(again)

    def _wrong(self, what: str) -> None:
        self._note("wrong", what)

    def _note(self, kind: str, what: str) -> None:
        with self._turn:
            getattr(self._verdicts, kind).append(f"{self.session}: {what}")
