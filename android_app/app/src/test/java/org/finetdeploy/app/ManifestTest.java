package org.finetdeploy.app;

import static org.junit.Assert.assertEquals;
import static org.junit.Assert.assertFalse;
import static org.junit.Assert.assertNull;
import static org.junit.Assert.assertTrue;

import android.Manifest;
import android.content.pm.ActivityInfo;
import android.content.pm.ApplicationInfo;
import android.content.pm.PackageInfo;
import android.content.pm.PackageManager;
import android.content.pm.ServiceInfo;

import java.util.Arrays;
import java.util.List;

import org.junit.Test;
import org.junit.runner.RunWith;
import org.robolectric.RobolectricTestRunner;
import org.robolectric.annotation.Config;

/** What the app opens to others, as Android reads it out of the linked manifest. */
@RunWith(RobolectricTestRunner.class)
@Config(sdk = 35)
public class ManifestTest {
    private final AppSandbox sandbox = new AppSandbox();

    private PackageInfo info() throws Exception {
        int flags = PackageManager.GET_ACTIVITIES | PackageManager.GET_SERVICES | PackageManager.GET_RECEIVERS
                | PackageManager.GET_PROVIDERS | PackageManager.GET_PERMISSIONS;
        PackageManager packages = sandbox.application.getPackageManager();
        return packages.getPackageInfo(sandbox.application.getPackageName(), flags);
    }

    @Test
    public void onlyTheScreenIsOpenToOtherAppsAndTheServiceToAdb() throws Exception {
        PackageInfo info = info();
        for (ActivityInfo activity : info.activities) {
            assertEquals(activity.name.endsWith(".MainActivity"), activity.exported);
        }
        assertEquals(1, info.services.length);
        ServiceInfo service = info.services[0];
        assertTrue(service.exported);
        assertEquals(Manifest.permission.DUMP, service.permission);
        assertEquals(ServiceInfo.FOREGROUND_SERVICE_TYPE_SPECIAL_USE, service.getForegroundServiceType());
        assertTrue(service.processName.endsWith(":visit"));
        assertNull(info.receivers);
        assertEquals(1, info.providers.length);
        assertFalse(info.providers[0].exported);
        assertTrue(info.providers[0].grantUriPermissions);
        assertNull(info.permissions);
    }

    @Test
    public void thePermissionsAreThoseOfAServiceInTheForegroundAndNothingIsBackedUp() throws Exception {
        List<String> asked = Arrays.asList(info().requestedPermissions);
        assertEquals(Arrays.asList(
                Manifest.permission.FOREGROUND_SERVICE, Manifest.permission.FOREGROUND_SERVICE_SPECIAL_USE,
                Manifest.permission.POST_NOTIFICATIONS, Manifest.permission.WAKE_LOCK), asked);
        assertEquals(0, info().applicationInfo.flags & ApplicationInfo.FLAG_ALLOW_BACKUP);
        assertEquals(0, info().applicationInfo.flags & ApplicationInfo.FLAG_DEBUGGABLE);
    }
}
