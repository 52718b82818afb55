"""The app's names on a phone, as its manifest has them."""

from __future__ import annotations

__all__ = ["APP_FILES", "APP_RUNTIMES", "PACKAGE", "PROCESS", "SERVICE"]

PACKAGE = "org.finetdeploy.app"
SERVICE = f"{PACKAGE}/.VisitService"
PROCESS = f"{PACKAGE}:visit"  # android:process=":visit"
APP_FILES = f"/sdcard/Android/data/{PACKAGE}/files"  # Context.getExternalFilesDir(null)
APP_RUNTIMES = ("executorch", "onnxruntime", "torch_mobile")
