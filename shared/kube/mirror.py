"""Keeps a copy of the objects of one kind, which the API server keeps up to date, so that control asks for nothing again and again.

The copy begins with a list, and a watch tells what happens after it. The client's own `kubernetes.informer` is not used: version 37 begins a
watch that fails again at once, without a wait between two attempts and without a bound to its silence, asks for no bookmarks, lists without pages,
and follows plain JSON objects from the version of the list only.
"""

from __future__ import annotations

import random
import threading
import time

from shared.errors import UnavailableError
from shared.kube.api import Cluster, EventStream, Object
from shared.kube.errors import ClusterError, Expired
from shared.log import Log

WATCH_SECONDS = (
    1800.0,
    3600.0,
)  # after which the server ends a watch and the next one begins, as API servers choose by themselves
SHORT_SECONDS = 1.0  # a watch that ends sooner without an event counts as a failure
WAITS = (1.0, 60.0)  # seconds between two attempts at a list or a watch: the first one, and the longest
PATIENCE_SECONDS = 5.0  # for which a reader waits until the API answers again
CLOSE_SECONDS = 5.0  # for a request that has no answer yet; its thread ends with the process
LISTED_SECONDS = 30.0  # between two lists that are made since the copy may be behind
LARGEST_DATA = 1 << 16  # bytes of a ConfigMap that are kept; whoever may create one may fill a megabyte
OMITTED = "omittedBytes"
"""Names the field of a copy of a ConfigMap that counts the bytes of its data, if these were too many to keep."""

log = Log("kubernetes")


class Mirror:
    """Holds the objects of one kind with some labels and fields, as they are now or were a moment ago.

    What this process creates and deletes by the same `Cluster` is seen at once. If an object that is to be created exists although the copy has
    none of that name, the objects are listed anew.
    """

    def __init__(self, cluster: Cluster, kind: str, selector: str = "", field_selector: str = "") -> None:
        """Prepares the copy, which begins when it is first read."""
        self.kind = kind
        self.version = ""
        """Gives the version of the API up to which the copy is complete."""
        self._cluster, self._selectors = cluster, (selector, field_selector)
        self._condition = threading.Condition()
        self._objects = dict[str, Object]()
        """Holds the objects by uid."""
        self._gone = set[str]()
        """Holds the uids of objects that this process has deleted, of which the watch may still tell older states until it tells their end."""
        self._created: dict[str, Object] | None = None
        """Holds what this process has created since a list began that has not ended."""
        self._error: UnavailableError | ClusterError | None = None
        self._thread: threading.Thread | None = None
        self._stream: EventStream | None = None
        self._listed = 0.0
        """Gives when the last list ended, by the monotonic clock."""
        self._watched = 0.0
        """Gives when the watch began, by the monotonic clock; 0 if the last attempt has not got there."""
        self._stop = threading.Event()
        cluster.observers.append(self)

    def objects(self) -> list[Object]:
        """Returns the objects by name, without what nobody reads.

        Raises UnavailableError if the API server does not answer, as it would not to a list, and ClusterError if it refuses.
        """
        if self._thread is None:
            self._list()
            self._thread = threading.Thread(target=self._follow, name=f"mirror of {self.kind}", daemon=True)
            self._thread.start()
        if not self._thread.is_alive():
            raise UnavailableError(
                f"Kubernetes: the watch of {self.kind} has ended, see the log; start this process again"
            )
        with self._condition:
            self._condition.wait_for(lambda: self._error is None, PATIENCE_SECONDS)
            if (error := self._error) is not None:
                raise type(error)(str(error)) from error
            return sorted(self._objects.values(), key=lambda found: str(found["metadata"]["name"]))

    def close(self) -> None:
        """Ends the watch."""
        self._stop.set()
        self._end_stream()
        self._cluster.observers.remove(self)
        if self._thread is not None:
            self._thread.join(CLOSE_SECONDS)

    # -- what this process writes

    def created(self, found: Object) -> None:
        """Takes an object that was created; the watch may have told its later states already."""
        with self._condition:
            if self._created is not None:
                self._created[_uid(found)] = found
            if not self.version or _version(found) > int(self.version):  # else it has been told, and maybe its end too
                self._objects.setdefault(_uid(found), _reduced(found))

    def deleted(self, name: str) -> None:
        """Takes the name of an object that no longer exists."""
        with self._condition:
            for uid in [uid for uid, found in self._objects.items() if found["metadata"]["name"] == name]:
                del self._objects[uid]
                self._gone.add(uid)

    def missed(self, name: str) -> None:
        """Lists anew if the copy has no object of this name, though one exists."""
        with self._condition:
            known = any(found["metadata"]["name"] == name for found in self._objects.values())
            if known or self._thread is None or time.monotonic() - self._listed < LISTED_SECONDS:
                return
            self.version = ""
        log.warning("listed again, as an object was missed", kind=self.kind, name=name)
        self._end_stream()

    # -- what the API server tells

    def _list(self) -> None:
        with self._condition:
            self._created = {}
            self._gone.clear()  # the list is younger than their end
        listed, version = self._cluster.list_version(self.kind, *self._selectors)
        if not version:
            raise UnavailableError(
                f"Kubernetes: the list of {self.kind} has no version, from which a watch could go on"
            )
        with self._condition:
            later = {uid: each for uid, each in (self._created or {}).items() if _version(each) > int(version)}
            found = later | {_uid(each): each for each in listed}
            self._gone &= found.keys()
            self._objects = {uid: _reduced(each) for uid, each in found.items() if uid not in self._gone}
            self._created, self.version, self._listed = None, version, time.monotonic()

    def _follow(self) -> None:
        """Keeps the copy up to date until `close`."""
        failures = 0
        while not self._stop.is_set():
            self._watched, before = 0.0, self.version
            error: UnavailableError | ClusterError | None = None
            try:
                if not self.version:
                    self._list()
                self._watch()
            except Expired:
                self.version = ""
            except (UnavailableError, ClusterError) as raised:
                error = raised
            if self._stop.is_set():
                return
            lasted = time.monotonic() - self._watched if self._watched else 0.0
            if lasted >= SHORT_SECONDS or (self._watched and self.version not in ("", before)):
                failures = 0  # it worked for a while, and goes on from where it was
            failures += 1
            if failures > 1:
                self._tell(error)
            wait = min(WAITS[0] * 2.0 ** (failures - 1), WAITS[1]) * random.uniform(0.5, 1.5)
            if error is not None:
                log.warning("the watch begins again", kind=self.kind, reason=str(error), seconds=round(wait, 1))
            self._stop.wait(wait)

    def _watch(self) -> None:
        version, seconds = self.version, random.uniform(*WATCH_SECONDS)
        stream = self._stream = self._cluster.watch(self.kind, version, seconds, *self._selectors)
        self._watched = time.monotonic()
        self._tell(None)
        try:
            if self._stop.is_set() or version != self.version:
                return  # before it was known that there is a stream to end
            for event in stream:
                self._take(event)
                if not self.version or self._stop.is_set():
                    return
        finally:
            self._stream = None
            stream.end()

    def _take(self, event: Object) -> None:
        kind, found = event["type"], event["object"]
        with self._condition:
            if kind == "DELETED":
                self._objects.pop(_uid(found), None)
                self._gone.discard(_uid(found))
            elif kind in ("ADDED", "MODIFIED") and _uid(found) not in self._gone:
                self._objects[_uid(found)] = _reduced(found)
            if self.version:  # else it is to be listed anew
                self.version = str(found["metadata"]["resourceVersion"])
            self._condition.notify_all()

    def _tell(self, error: UnavailableError | ClusterError | None) -> None:
        with self._condition:
            self._error = error
            self._condition.notify_all()

    def _end_stream(self) -> None:
        if (stream := self._stream) is not None:
            stream.end()


def _uid(found: Object) -> str:
    return str(found["metadata"]["uid"])


def _version(found: Object) -> int:
    """Returns the version of an object, which API servers count up for all objects of a kind."""
    return int(found["metadata"]["resourceVersion"])


def _reduced(found: Object) -> Object:
    """Returns an object without its history of managers, a Job without its Pods' containers, and a ConfigMap without what nobody reads: most bytes."""
    small = {**found, "metadata": {name: value for name, value in found["metadata"].items() if name != "managedFields"}}
    template = found.get("spec", {}).get("template")
    if template is not None:
        small["spec"] = {**found["spec"], "template": {"metadata": template.get("metadata", {})}}
    if "spec" not in found:
        small["metadata"].pop("annotations", None)
        contents = [found.get(part) or {} for part in ("data", "binaryData")]
        size = sum(len(name.encode()) + len(value.encode()) for content in contents for name, value in content.items())
        if size > LARGEST_DATA:
            small = {name: value for name, value in small.items() if name not in ("data", "binaryData")}
            small[OMITTED] = size
    return small
