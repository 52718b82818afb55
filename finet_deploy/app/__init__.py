"""The Android app as an APK, without Google's servers: libraries, compiler calls, packing, signing, checks.

The Java is in `android_app/`; what it is linked with is pinned in `libraries.json` beside this file.
"""
