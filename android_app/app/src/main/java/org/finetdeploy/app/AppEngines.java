package org.finetdeploy.app;

import android.content.Context;

import org.finetdeploy.core.engine.Engines;
import org.finetdeploy.engines.ExecuTorchEngine;
import org.finetdeploy.engines.OnnxRuntimeEngine;
import org.finetdeploy.engines.TorchMobileEngine;

/** The runtimes that are packed into this app. */
final class AppEngines {
    private AppEngines() {}

    /** New ones; no library is loaded yet. */
    static Engines all(Context context) {
        return new Engines(
                new ExecuTorchEngine(context.getString(R.string.executorch_version)),
                new OnnxRuntimeEngine(),
                new TorchMobileEngine(context.getString(R.string.torch_mobile_version)));
    }
}
