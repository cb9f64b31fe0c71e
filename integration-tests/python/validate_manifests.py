"""Reads a JSON list of manifests from standard input and checks each against the schemas of several versions of Kubernetes,
or, if its kind was added by others, against a schema of the folder that is named.

Needs kubernetes-validate and jsonschema.
"""

import json
import pathlib
import sys

import jsonschema
import kubernetes_validate

VERSIONS = ["1.33", "1.34", "1.35", "1.36", "1.37"]


def main() -> int:
    folder = pathlib.Path(sys.argv[1])
    documents = json.load(sys.stdin)
    wrong = []
    for document in documents:
        kind, name = document["kind"], document["metadata"]["name"]
        schema = folder / f"{kind.lower()}.json"
        if schema.exists():
            validator = jsonschema.Draft202012Validator(json.loads(schema.read_text()))
            wrong += [f"{kind} {name}: {error.json_path}: {error.message}" for error in validator.iter_errors(document)]
            continue
        for version in VERSIONS:
            try:
                kubernetes_validate.validate(document, version, strict=True)
            except kubernetes_validate.ValidationError as error:
                wrong.append(f"{kind} {name}, {version}: {error.message}")
            except kubernetes_validate.SchemaNotFoundError:
                wrong.append(f"{kind} {name}, {version}: there is no schema of it")
    print("\n".join(wrong) or f"{len(documents)} documents, versions {VERSIONS[0]} to {VERSIONS[-1]}")
    return 1 if wrong or not documents else 0


if __name__ == "__main__":
    sys.exit(main())
