"""A bucket of S3 that obeys policies: moto, one request after the other (it looks whether an object is there and writes it in two
steps), behind an evaluator of the identity policies that it is given.

Usage: python bucket.py ADDRESS PORT POLICIES DENIED [BRAKE]; POLICIES is a JSON object {access key: policy}, where a policy may be
"everything" and a key without one may do nothing; DENIED is a file that gets a line for every refusal. While the file BRAKE
is there, rankings are written slowly, and the more slowly the more there are. Prints `ready`, ends with its standard input.
"""

import fnmatch
import io
import itertools
import json
import os
import re
import sys
import threading
import time
import urllib.parse
import urllib.request

from moto.moto_server.werkzeug_app import DomainDispatcherApplication, create_backend_app
from werkzeug.serving import WSGIRequestHandler, make_server

BUCKET = "shop"
REFUSAL = b"<Error><Code>AccessDenied</Code><Message>Access Denied</Message></Error>"


def listed(value):
    return value if isinstance(value, list) else [value]


def like(pattern, text):
    """`*` and `?` alone have a meaning in a policy."""
    return fnmatch.fnmatchcase(text, pattern.replace("[", "[[]"))


def holds(condition, request):
    """Whether all conditions of a statement hold. A word that is not known here is an error, never a pass."""
    for operator, keys in condition.items():
        for key, values in keys.items():
            value = request["context"].get(key)
            if operator == "StringLike":
                if value is None or not any(like(pattern, value) for pattern in listed(values)):
                    return False
            elif operator == "Null":
                if (value is None) != (listed(values) == ["true"]):
                    return False
            else:
                raise ValueError(f"condition {operator}")
    return True


def matches(statement, request):
    return (
        any(like(action, request["action"]) for action in listed(statement["Action"]))
        and any(like(resource, request["resource"]) for resource in listed(statement["Resource"]))
        and holds(statement.get("Condition", {}), request)
    )


def allows(policy, request):
    effects = {s["Effect"] for s in policy["Statement"] if matches(s, request)}
    return effects == {"Allow"}


def requests_of(environ, body):
    """The actions that a call needs."""
    method, query = environ["REQUEST_METHOD"], urllib.parse.parse_qs(environ.get("QUERY_STRING", ""), True)
    _, bucket, key = (urllib.parse.unquote(environ["PATH_INFO"]) + "/").split("/", 2)
    key = key[:-1]
    arn, context = f"arn:aws:s3:::{bucket}", {}
    if not key and method == "GET":
        context["s3:prefix"] = query.get("prefix", [None])[0]
        return [{"action": "s3:ListBucket", "resource": arn, "context": context}]
    if not key and "delete" in query:
        keys = re.findall(r"<Key>(.*?)</Key>", body.decode())
        return [{"action": "s3:DeleteObject", "resource": f"{arn}/{key}", "context": {}} for key in keys]
    actions = {"GET": "s3:GetObject", "HEAD": "s3:GetObject", "PUT": "s3:PutObject", "DELETE": "s3:DeleteObject"}
    context["s3:if-none-match"] = environ.get("HTTP_IF_NONE_MATCH")
    return [{"action": actions.get(method, f"s3:{method}"), "resource": f"{arn}/{key}", "context": context}]


def main():
    address, port, policies, denied, *brake = sys.argv[1:]
    with open(policies) as file:
        policies = json.load(file)
    threading.Thread(target=lambda: (sys.stdin.read(), os._exit(0)), daemon=True).start()
    WSGIRequestHandler.timeout = 30
    app, one = DomainDispatcherApplication(create_backend_app), threading.Lock()
    rankings = itertools.count()

    def serve(environ, start):
        body = environ["wsgi.input"].read(int(environ.get("CONTENT_LENGTH") or 0))
        environ["wsgi.input"] = io.BytesIO(body)
        credential = re.search(r"Credential=([^/]+)/", environ.get("HTTP_AUTHORIZATION", ""))
        policy = policies.get(credential.group(1) if credential else "nobody", {"Statement": []})
        refused = [r for r in requests_of(environ, body) if policy != "everything" and not allows(policy, r)]
        if refused:
            with one, open(denied, "a") as file:
                file.write(json.dumps({"who": credential.group(1) if credential else "nobody", **refused[0]}) + "\n")
            start("403 Forbidden", [("content-type", "application/xml"), ("content-length", str(len(REFUSAL)))])
            return [REFUSAL]
        is_ranking = environ["REQUEST_METHOD"] == "PUT" and "/tables/rankings/" in environ["PATH_INFO"]
        if is_ranking and any(map(os.path.exists, brake)):
            time.sleep(2 + next(rankings) / 20)
        with one:
            return [b"".join(app(environ, start))]

    server = make_server(address, int(port), serve, threaded=True)
    threading.Thread(target=server.serve_forever).start()
    everything = next(key for key, policy in policies.items() if policy == "everything")
    make = urllib.request.Request(f"http://{address}:{port}/{BUCKET}", method="PUT")
    make.add_header("Authorization", f"AWS4-HMAC-SHA256 Credential={everything}/20260101/us-east-1/s3/aws4_request")
    urllib.request.urlopen(make).read()
    print("ready", flush=True)


if __name__ == "__main__":
    main()
