package org.finetdeploy.core.engine;

import java.util.ArrayList;
import java.util.Arrays;
import java.util.List;

import org.finetdeploy.core.Problem;

/** The runtimes that this program has. */
public final class Engines {
    private final List<Engine> engines;

    public Engines(Engine... engines) {
        this.engines = Arrays.asList(engines);
    }

    /** Names of the runtimes, as the protocol has them. */
    public List<String> runtimes() {
        List<String> runtimes = new ArrayList<>();
        for (Engine engine : engines) {
            runtimes.add(engine.runtime());
        }
        return runtimes;
    }

    /** The engine for a format; Problem when this program has none. */
    public Engine find(String format) {
        for (Engine engine : engines) {
            if (engine.format().equals(format)) {
                return engine;
            }
        }
        throw new Problem("this runner has no runtime for '" + Problem.firstLine(format) + "' files; measure "
                + String.join(" and ", runtimes()) + " with it");
    }
}
