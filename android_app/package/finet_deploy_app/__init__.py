"""The Android app of finet-deploy, as data: an APK, `app.json`, and the licences of what is inside."""
