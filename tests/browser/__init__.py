"""Drives JupyterLab and the dashboard's page in the system's Chromium."""
