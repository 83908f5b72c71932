from __future__ import annotations

from service.terminal.links import how_to_open


def test_a_password_in_the_address_is_not_shown() -> None:
    assert how_to_open("https://me:secret@mlflow.example:5000/x", "#/runs") == "all curves: https://mlflow.example:5000/x/#/runs"
    assert how_to_open("sqlite:////data/mlflow.db", "#/runs").splitlines() == [
        "all curves: mlflow ui --backend-store-uri sqlite:////data/mlflow.db",
        "  and then: http://127.0.0.1:5000/#/runs",
    ]
    assert how_to_open("postgresql://me:secret@db:5432/mlflow", "#/runs").splitlines() == [
        "all curves: mlflow ui --backend-store-uri 'postgresql://me:***@db:5432/mlflow'",
        "  and then: http://127.0.0.1:5000/#/runs",
    ]


def test_an_address_with_colons_keeps_its_brackets() -> None:
    assert how_to_open("http://me:secret@[::1]:5000", "#/runs") == "all curves: http://[::1]:5000/#/runs"
