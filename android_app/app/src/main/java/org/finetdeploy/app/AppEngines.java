package org.finetdeploy.app;

import org.finetdeploy.core.engine.Engines;
import org.finetdeploy.engines.ExecuTorchEngine;
import org.finetdeploy.engines.OnnxRuntimeEngine;
import org.finetdeploy.engines.TorchMobileEngine;

/** The runtimes that are packed into this app. */
final class AppEngines {
    private AppEngines() {}

    /** New ones; no library is loaded yet. */
    static Engines all() {
        return new Engines(new ExecuTorchEngine(), new OnnxRuntimeEngine(), new TorchMobileEngine());
    }
}
