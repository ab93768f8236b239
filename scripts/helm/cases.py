"""The matrix: values that the chart must take, and values that it must refuse."""

CPU = {"gpu": {"enabled": False}}
DIGEST = "sha256:" + "0123456789abcdef" * 4
TLS = {"tls": {"public": {"source": "certManager"}, "internal": {"source": "certManager"}}}
TLS_SECRETS = {
    "tls": {
        "public": {"source": "secret", "secret": "public", "clientCertificates": True, "clientSecret": "client"},
        "internal": {"source": "secret", "routerSecret": "router", "workerSecret": "worker"},
    }
}
TOKENS = {"auth": {"tokensSecret": "tokens", "adminTokenSecret": "admin"}}
HUB = {"model": {"source": "hub", "hub": {"repository": "deepseek-ai/deepseek-coder-1.3b-base", "tokenSecret": {"name": "hub"}}}}
WATCHED = {
    "monitoring": {"serviceMonitor": True, "alerts": True, "dashboard": True, "labels": {"release": "prometheus"}},
    "networkPolicy": {"monitoringNamespace": "monitoring"},
    "traces": {"otlp": "http://collector.observability:4317", "sample": 0.5},
}

# Name: (values, files of the chart, oldest Kubernetes).
ACCEPTED = {
    "default": ({}, [], "1.34"),
    "laptop": ({}, ["values-laptop.yaml"], "1.30"),
    "33b": ({}, ["values-33b.yaml"], "1.34"),
    "plugin": ({"gpu": {"allocation": "plugin", "runtimeClassName": "nvidia"}}, [], "1.30"),
    "three-groups": ({**CPU, "groups": 3}, [], "1.30"),
    "pods": ({**CPU, "groups": 2, "worldSize": 4, "worker": {"layout": "pods"}}, [], "1.30"),
    "pods-gpu": ({"worker": {"layout": "pods"}}, [], "1.34"),
    "lws": ({"groups": 2, "worldSize": 16, "worker": {"layout": "lws", "exclusiveTopology": "example.com/rack"}}, [], "1.34"),
    "pvc": ({**CPU, "model": {"source": "pvc", "claim": "models", "path": "deepseek-coder-6.7b-base"}}, [], "1.30"),
    "hostpath": ({**CPU, "model": {"source": "hostPath", "hostPath": "/srv/models", "path": "deepseek", "fim": "<S>{suffix}<P>{prefix}", "nextEdit": "sweep"}}, [], "1.30"),
    "hub": ({**CPU, **HUB}, [], "1.30"),
    "hub-claim": ({**CPU, "model": {"source": "hub", "hub": {"repository": "a/b", "claim": "cache", "endpoint": "https://hub.example"}}}, [], "1.30"),
    "tls": ({**CPU, **TLS}, [], "1.30"),
    "tls-issuer": (
        {
            **CPU,
            "tls": {
                "public": {"source": "certManager", "issuer": {"name": "corporate"}, "dnsNames": ["pool.example.com"], "clientCertificates": True}
            },
        },
        [],
        "1.30",
    ),
    "secured": (
        {
            **CPU,
            **TLS_SECRETS,
            **TOKENS,
            **WATCHED,
            "groups": 2,
            "networkPolicy": {"clients": [{"podSelector": {"matchLabels": {"editor": "yes"}}}], "monitoringNamespace": "monitoring"},
        },
        [],
        "1.30",
    ),
    "http": ({**CPU, **TLS, "http": {"enabled": True}}, [], "1.30"),
    "watched": ({**CPU, **WATCHED}, [], "1.30"),
    "ipv6": ({"ipFamily": "IPv6", "groups": 2}, [], "1.34"),
    "digests": ({"image": {"digest": DIGEST, "cudaDigest": DIGEST[:-1] + "0", "tag": "main"}, "router": {"connectionAge": ""}}, [], "1.34"),
    "external-etcd": ({**CPU, "etcd": {"enabled": False, "endpoints": ["http://etcd-0:2379", "http://etcd-1:2379"]}}, [], "1.30"),
    "scaled": (
        {
            **CPU,
            "router": {
                "connectionAge": "1h 30m",
                "repair": {"when": "idle", "window": 64, "freeRows": 0},
                "autoscaling": {"enabled": True},
                "service": {"type": "LoadBalancer", "annotations": {"a": "b"}},
                "settings": {"PIE_COMPLETIONS": "2048"},
                "ack": "owner",
            },
            "worker": {
                "kvSpill": {"volume": {"hostPath": {"path": "/var/lib/pie-pool", "type": "DirectoryOrCreate"}}, "size": "200Gi"},
                "settings": {"PIE_KV_MEMORY": "40Gi"},
                "nodeSelector": {"pool": "cpu"},
                "priorityClassName": "high",
                "tolerations": [{"operator": "Exists"}],
                "podAnnotations": {"note": "x"},
            },
            "image": {"pullSecrets": ["registry"], "tag": "main"},
            "networkPolicy": {"enabled": False},
        },
        [],
        "1.30",
    ),
}

# Renders that are compared with scripts/helm/goldens, whole.
GOLDEN = ["default", "laptop", "lws", "secured", "tls"]

# What: (values, Kubernetes, a word of the complaint).
REFUSED = {
    "a key that means nothing": ({"grups": 2}, "1.37.0", "grups"),
    "no group": ({"groups": 0}, "1.37.0", "groups"),
    "a text for a number": ({"worldSize": "8"}, "1.37.0", "worldSize"),
    "an unknown source of the model": ({"model": {"source": "s3"}}, "1.37.0", "source"),
    "a claim without a name": ({"model": {"source": "pvc"}}, "1.37.0", "claim"),
    "a host path that is relative": ({"model": {"source": "hostPath", "hostPath": "models"}}, "1.37.0", "hostPath"),
    "a form of asking for the next edit that nobody knows": ({"model": {"nextEdit": "zed"}}, "1.37.0", "nextEdit"),
    "a way to fill in the middle without the text behind the cursor": ({"model": {"fim": "<P>{prefix}<M>"}}, "1.37.0", "fim"),
    "a model outside its volume": ({"model": {"source": "pvc", "claim": "a", "path": "../etc"}}, "1.37.0", "path"),
    "a hub without a repository": ({"model": {"source": "hub"}}, "1.37.0", "repository"),
    "an unknown layout": ({"worker": {"layout": "daemon"}}, "1.37.0", "layout"),
    "32 ranks in one pod": ({"worldSize": 32}, "1.37.0", "worldSize is 32"),
    "claims of devices before Kubernetes 1.34": ({}, "1.33.0", "gpu.allocation=plugin"),
    "a Kubernetes that is too old": (CPU, "1.29.0", ">=1.30.0"),
    "two members of etcd": ({"etcd": {"replicas": 2}}, "1.37.0", "replicas"),
    "three members that keep nothing": ({"etcd": {"storage": ""}}, "1.37.0", "replicas"),
    "no etcd at all": ({"etcd": {"enabled": False}}, "1.37.0", "endpoints"),
    "an endpoint that is no URL": ({"etcd": {"enabled": False, "endpoints": ["etcd:2379"]}}, "1.37.0", "endpoints"),
    "TLS without a secret": ({"tls": {"public": {"source": "secret"}}}, "1.37.0", "secret"),
    "client certificates without TLS": ({"tls": {"public": {"clientCertificates": True}}}, "1.37.0", "clientCertificates"),
    "internal TLS with one secret": ({"tls": {"internal": {"source": "secret", "routerSecret": "a"}}}, "1.37.0", "workerSecret"),
    "tokens without one for the hook": ({"auth": {"tokensSecret": "a"}}, "1.37.0", "adminTokenSecret"),
    "a setting that the chart sets": ({"worker": {"settings": {"PIE_RANK": "1"}}}, "1.37.0", "PIE_RANK"),
    "a setting of TLS": ({"router": {"settings": {"PIE_TLS_CERT": "x"}}}, "1.37.0", "PIE_TLS_CERT"),
    "a setting that is none": ({"router": {"settings": {"PATH": "x"}}}, "1.37.0", "PATH"),
    "fewer at most than at least": ({"router": {"autoscaling": {"enabled": True, "minReplicas": 9}}}, "1.37.0", "minReplicas"),
    "a sample above 1": ({"traces": {"sample": 2}}, "1.37.0", "sample"),
    "a digest that is none": ({"image": {"digest": "sha256:abc"}}, "1.37.0", "digest"),
    "another family of addresses": ({"ipFamily": "IPv5"}, "1.37.0", "ipFamily"),
    "an age that is none": ({"router": {"connectionAge": "soon"}}, "1.37.0", "connectionAge"),
    "repairs at a time that there is not": ({"router": {"repair": {"when": "never"}}}, "1.37.0", "when"),
    "free rows by a word that means nothing": ({"router": {"repair": {"freeRows": "many"}}}, "1.37.0", "freeRows"),
    "a setting that has a value of its own": ({"router": {"settings": {"PIE_FREE_ROWS": "4"}}}, "1.37.0", "PIE_FREE_ROWS"),
    "acknowledged by nobody": ({"router": {"ack": "nobody"}}, "1.37.0", "ack"),
    "rows on two volumes": ({"worker": {"kvSpill": {"volume": {"emptyDir": {}, "hostPath": {"path": "/a"}}}}}, "1.37.0", "volume"),
    "no memory": ({"worker": {"sharedMemory": "much"}}, "1.37.0", "sharedMemory"),
}
