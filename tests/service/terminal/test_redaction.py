from __future__ import annotations

import pytest

from service.terminal.redaction import hides_secret, holds_secret, redact, secret_name


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("cannot reach https://me:geheim@host:5000/x?y=1 now", "cannot reach https://***@host:5000/x?y=1 now"),
        ("https://geheim@host/x", "https://***@host/x"),
        ("https://geheim:@host/x", "https://***@host/x"),
        ("git+https://geheim@host/x.git", "git+https://***@host/x.git"),
        ("https://geheim:x-oauth-basic@host", "https://***@host"),
        ("postgresql://me:ge:h/e@im@host:5432/db", "postgresql://me:***@host:5432/db"),
        ("postgresql+psycopg2://me:geheim@host/db", "postgresql+psycopg2://me:***@host/db"),
        ("s3://key:geheim@bucket/x", "s3://key:***@bucket/x"),
        ("postgresql://host/db?user=me&password=geheim&x=1", "postgresql://host/db?user=me&password=***&x=1"),
        ("https://host/?sig=geheim&sv=1", "https://host/?sig=***&sv=1"),
        ("https://host/?X-Amz-Signature=geheim#top", "https://host/?X-Amz-Signature=***#top"),
        ("https://host/?ACCESS_TOKEN=geheim", "https://host/?ACCESS_TOKEN=***"),
        ("https://host/?a=1&api_key=geheim", "https://host/?a=1&api_key=***"),
        ("https://host/?client_secret=geheim", "https://host/?client_secret=***"),
        ("two: https://a:geheim@one and https://geheim@two", "two: https://***@one and https://***@two"),
        ("401: geheim-42 is no token", "401: *** is no token"),
    ],
)
def test_no_secret_is_left(text: str, shown: str) -> None:
    environment = {"MLFLOW_TRACKING_TOKEN": "geheim-42", "WINNOW_SECRET": "the", "HOME": "cannot"}
    assert redact(text, environment) == shown
    assert "geheim" not in shown


@pytest.mark.parametrize("password", ["it's-geheim", "ge heim", 'ge"heim', "123/geheim", "ge@heim:x"])
def test_the_password_of_an_address_may_hold_anything(password: str) -> None:
    address = f"postgresql://me:{password}@host:5432/db"
    assert holds_secret(address)
    said = redact(f"MLflow at {address} does not answer", {"MLFLOW_TRACKING_URI": address})
    assert said == "MLflow at postgresql://me:***@host:5432/db does not answer"


@pytest.mark.parametrize(
    "text",
    [
        "postgresql://me@host/db",
        "postgresql://host/db?sslkey=/etc/key.pem",
        "http://host:5000/a@b",
        "http://127.0.0.1:5000",
        "sqlite:////shared/me@home/studies.db?timeout=1",
        "s3://bucket/a@b",
        "a@b, c://d",
    ],
)
def test_what_is_no_secret_stays(text: str) -> None:
    assert redact(text, {}) == text
    assert redact(text, {"ADDRESS": text}) == text
    assert not hides_secret(text)
    assert not holds_secret(text)


@pytest.mark.parametrize("name", ["AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN", "MLFLOW_TRACKING_PASSWORD", "HF_TOKEN", "wandb_api_key"])
def test_a_secret_has_a_name_that_says_so(name: str) -> None:
    assert secret_name(name)


@pytest.mark.parametrize("name", ["AWS_REGION", "RAY_AUTH_TOKEN_PATH", "TOKENIZERS_PARALLELISM", "KEYBOARD", "MONKEY"])
def test_other_names_do_not(name: str) -> None:
    assert not secret_name(name)
