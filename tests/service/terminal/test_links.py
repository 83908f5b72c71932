from __future__ import annotations

from service.terminal.links import how_to_open


def test_a_password_in_the_address_is_not_shown() -> None:
    assert how_to_open("https://me:secret@mlflow.example:5000/x", "#/runs") == "all curves: https://mlflow.example:5000/x/#/runs"
    assert how_to_open("sqlite:////data/mlflow.db", "#/runs").splitlines() == [
        "all curves: mlflow ui --backend-store-uri sqlite:////data/mlflow.db",
        "  and then: http://127.0.0.1:5000/#/runs",
    ]
