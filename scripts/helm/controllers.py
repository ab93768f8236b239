"""The part of kube-controller-manager that the chart needs, in small: Deployments, StatefulSets, and what their owners leave behind.

For scripts/helm/cluster.sh --quick, which does without building the real one. Rolls as Kubernetes documents it: a StatefulSet from its last
pod on, each ready before the next goes; a Deployment within maxSurge, and never below its replicas (maxUnavailable: 0 is all that is known).
"""

import copy
import hashlib
import json
import threading
import time

GROUP = "/apis/apps/v1"


def digest(template):
    return hashlib.sha256(json.dumps(template, sort_keys=True).encode()).hexdigest()[:10]


def owned(thing, kind, version="apps/v1"):
    meta = thing["metadata"]
    return [{"apiVersion": version, "kind": kind, "name": meta["name"], "uid": meta["uid"], "controller": True, "blockOwnerDeletion": False}]


def owner(thing):
    references = thing["metadata"].get("ownerReferences", [])
    return references[0]["uid"] if references else None


def ready(pod):
    return any(entry["type"] == "Ready" and entry["status"] == "True" for entry in pod.get("status", {}).get("conditions", []))


def leaves(pod):
    return "deletionTimestamp" in pod["metadata"]


class Controllers:
    """Runs until `stop`."""

    def __init__(self, api):
        self.api, self.stopping = api, False
        self.thread = threading.Thread(target=self.loop, daemon=True)
        self.thread.start()

    def stop(self):
        self.stopping = True
        self.thread.join()

    def loop(self):
        while not self.stopping:
            try:
                self.look()
            except Exception as error:  # Somebody else changed the same thing: the next look sees it.
                if not self.stopping:
                    print(f"controllers: {error!r}", flush=True)
            time.sleep(0.3)

    def look(self):
        sets = self.api.get(f"{GROUP}/statefulsets")["items"]
        deployments = self.api.get(f"{GROUP}/deployments")["items"]
        replicas = self.api.get(f"{GROUP}/replicasets")["items"]
        pods = self.api.get("/api/v1/pods")["items"]
        for one in sets:
            self.stateful(one, [pod for pod in pods if owner(pod) == one["metadata"]["uid"]])
        for one in deployments:
            self.deployment(one, [entry for entry in replicas if owner(entry) == one["metadata"]["uid"]], pods)
        # What is left when its owner is gone.
        there = {one["metadata"]["uid"] for one in [*sets, *deployments, *replicas]}
        for entry in replicas:
            if owner(entry) not in there:
                self.remove("replicasets", entry)
        for pod in pods:
            if owner(pod) and owner(pod) not in there and not leaves(pod):
                self.remove("pods", pod)

    def remove(self, kind, thing):
        prefix = "/api/v1" if kind == "pods" else GROUP
        self.api.delete(f"{prefix}/namespaces/{thing['metadata']['namespace']}/{kind}/{thing['metadata']['name']}", {})

    def create_pod(self, above, kind, name, labels, more, template, claims=()):
        template = copy.deepcopy(template)
        namespace = above["metadata"]["namespace"]
        meta = {**template["metadata"], "name": name, "namespace": namespace, "ownerReferences": owned(above, kind)}
        meta["labels"] = {**meta["labels"], **labels}
        spec = {**template["spec"], **more}
        for claim in claims:
            claim_name = f"{claim['metadata']['name']}-{name}"
            body = {"apiVersion": "v1", "kind": "PersistentVolumeClaim", "metadata": {"name": claim_name}, "spec": claim["spec"]}
            self.api.call("POST", f"/api/v1/namespaces/{namespace}/persistentvolumeclaims", body, missing=True)
            spec["volumes"] = [*spec.get("volumes", []), {"name": claim["metadata"]["name"], "persistentVolumeClaim": {"claimName": claim_name}}]
        self.api.create(f"/api/v1/namespaces/{namespace}/pods", {"apiVersion": "v1", "kind": "Pod", "metadata": meta, "spec": spec})

    def status(self, kind, thing, **status):
        status["observedGeneration"] = thing["metadata"]["generation"]
        if not status.items() <= thing.get("status", {}).items():
            path = f"{GROUP}/namespaces/{thing['metadata']['namespace']}/{kind}/{thing['metadata']['name']}/status"
            self.api.call("PATCH", path, {"status": status}, "application/merge-patch+json", missing=True)

    def stateful(self, one, pods):
        meta, spec = one["metadata"], one["spec"]
        assert spec["podManagementPolicy"] == "Parallel"
        revision, mine = f"{meta['name']}-{digest(spec['template'])}", {pod["metadata"]["name"]: pod for pod in pods}
        for ordinal in range(spec["replicas"]):
            name = f"{meta['name']}-{ordinal}"
            if name not in mine:
                labels = {
                    "apps.kubernetes.io/pod-index": str(ordinal),
                    "statefulset.kubernetes.io/pod-name": name,
                    "controller-revision-hash": revision,
                }
                more = {"hostname": name, "subdomain": spec["serviceName"]}
                self.create_pod(one, "StatefulSet", name, labels, more, spec["template"], spec.get("volumeClaimTemplates", []))
        ordered = sorted(pods, key=lambda pod: -int(pod["metadata"]["name"].rsplit("-", 1)[1]))
        new = [pod for pod in pods if pod["metadata"]["labels"]["controller-revision-hash"] == revision and not leaves(pod)]
        well = [pod for pod in pods if ready(pod) and not leaves(pod)]
        for pod in ordered:
            if int(pod["metadata"]["name"].rsplit("-", 1)[1]) >= spec["replicas"]:
                if not leaves(pod):
                    self.remove("pods", pod)
            elif pod not in new and spec["updateStrategy"]["type"] == "RollingUpdate":
                # One at a time: those behind it are new and well, and nobody is on the way.
                behind = [other for other in ordered[: ordered.index(pod)]]
                if all(other in new and other in well for other in behind) and not any(map(leaves, pods)) and len(pods) == spec["replicas"]:
                    self.remove("pods", pod)
                break
        done = len(new) == spec["replicas"]
        current = revision if done else one.get("status", {}).get("currentRevision", revision)
        self.status(
            "statefulsets",
            one,
            replicas=len(pods),
            readyReplicas=len(well),
            availableReplicas=len(well),
            updatedReplicas=len(new),
            currentReplicas=len(new) if done else len(pods) - len(new),
            currentRevision=current,
            updateRevision=revision,
        )

    def deployment(self, one, replicas, pods):
        meta, spec = one["metadata"], one["spec"]
        rolling = spec["strategy"]["rollingUpdate"]
        assert rolling["maxUnavailable"] == 0
        name = f"{meta['name']}-{digest(spec['template'])}"
        mine = {entry["metadata"]["name"]: [pod for pod in pods if owner(pod) == entry["metadata"]["uid"] and not leaves(pod)] for entry in replicas}
        label = {"pod-template-hash": name.rsplit("-", 1)[1]}
        if name not in mine:
            template = copy.deepcopy(spec["template"])
            template["metadata"]["labels"].update(label)
            number = max([int(entry["metadata"]["annotations"]["deployment.kubernetes.io/revision"]) for entry in replicas], default=0) + 1
            body = {
                "apiVersion": "apps/v1",
                "kind": "ReplicaSet",
                "metadata": {
                    "name": name,
                    "labels": template["metadata"]["labels"],
                    "ownerReferences": owned(one, "Deployment"),
                    "annotations": {"deployment.kubernetes.io/revision": str(number)},
                },
                "spec": {"replicas": 0, "selector": {"matchLabels": {**spec["selector"]["matchLabels"], **label}}, "template": template},
            }
            self.api.create(f"{GROUP}/namespaces/{meta['namespace']}/replicasets", body)
            return
        new, old = mine[name], [pod for key, group in mine.items() if key != name for pod in group]
        (newest,) = [entry for entry in replicas if entry["metadata"]["name"] == name]
        well = [pod for pod in [*new, *old] if ready(pod)]
        if len(new) < spec["replicas"] and len(new) + len(old) < spec["replicas"] + rolling["maxSurge"]:
            self.create_pod(newest, "ReplicaSet", f"{name}-{time.time_ns() % 10**9:x}", label, {}, spec["template"])
        elif old and (len(well) > spec["replicas"] or not ready(old[0])):
            self.remove("pods", old[0])
        elif len(new) > spec["replicas"]:
            self.remove("pods", new[-1])
        for entry in replicas:
            group = mine[entry["metadata"]["name"]]
            self.status(
                "replicasets",
                entry,
                replicas=len(group),
                readyReplicas=len([pod for pod in group if ready(pod)]),
                availableReplicas=len([pod for pod in group if ready(pod)]),
            )
        available = len(well) >= spec["replicas"]
        conditions = [
            {"type": kind, "status": str(value), "reason": reason}
            for kind, value, reason in [
                ("Available", available, "MinimumReplicas"),
                ("Progressing", True, "NewReplicaSetAvailable" if available and not old else "ReplicaSetUpdated"),
            ]
        ]
        self.status(
            "deployments",
            one,
            replicas=len(new) + len(old),
            updatedReplicas=len(new),
            readyReplicas=len(well),
            availableReplicas=len(well),
            unavailableReplicas=max(0, spec["replicas"] - len(well)),
            conditions=conditions,
        )
