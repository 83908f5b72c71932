"""What sweeps found, read from MLflow alone, for people: tables, figures and one page that needs no network."""
