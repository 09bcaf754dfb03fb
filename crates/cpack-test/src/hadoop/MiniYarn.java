import java.io.BufferedReader;
import java.io.File;
import java.io.FileOutputStream;
import java.io.InputStreamReader;
import java.io.OutputStream;
import java.nio.file.Files;
import org.apache.hadoop.conf.Configuration;
import org.apache.hadoop.fs.FileSystem;
import org.apache.hadoop.fs.Path;
import org.apache.hadoop.fs.permission.FsPermission;
import org.apache.hadoop.hdfs.MiniDFSCluster;
import org.apache.hadoop.minikdc.MiniKdc;
import org.apache.hadoop.security.UserGroupInformation;
import org.apache.hadoop.yarn.conf.YarnConfiguration;
import org.apache.hadoop.yarn.server.MiniYARNCluster;
import org.apache.hadoop.yarn.server.resourcemanager.scheduler.ResourceScheduler;
import org.apache.hadoop.yarn.server.resourcemanager.scheduler.capacity.CapacityScheduler;

/**
 * HDFS and YARN with two node managers in one process, for the tests: {@code MiniYarn DIRECTORY [secure]}.
 *
 * <p>Containers are real processes. Leaves {@code conf/} (a client's configuration), {@code bin/yarn}, and when secure
 * {@code krb5.conf} and {@code user.keytab} of alice in the directory, prints READY, obeys commands on standard input (one a line, answered by OK) and ends when that ends.
 */
public class MiniYarn {
  private static final String USER = "alice";

  /** What all JVMs of the tests are told. */
  private static final String OPTIONS = System.getenv().getOrDefault("JAVA_TOOL_OPTIONS", "");

  private final File directory;
  private final boolean secure;
  private MiniDFSCluster hdfs;
  private MiniYARNCluster yarn;

  private MiniYarn(File directory, boolean secure) {
    this.directory = directory;
    this.secure = secure;
  }

  public static void main(String[] args) throws Exception {
    MiniYarn cluster = new MiniYarn(new File(args[0]), args.length > 1 && args[1].equals("secure"));
    try {
      cluster.start();
      System.out.println("READY");
      BufferedReader commands = new BufferedReader(new InputStreamReader(System.in));
      while (commands.readLine() != null) {
        System.out.println("OK");
      }
      // Containers are stopped in order, so that none outlives the test.
      cluster.yarn.stop();
    } catch (Throwable failure) {
      failure.printStackTrace();
      Runtime.getRuntime().halt(1);
    }
    Runtime.getRuntime().halt(0);
  }

  private void start() throws Exception {
    String classpath = new File(directory, "conf").getPath() + "," + System.getProperty("jars") + "/*";
    YarnConfiguration conf = new YarnConfiguration();
    conf.set("hdfs.minidfs.basedir", new File(directory, "dfs").getPath());
    conf.set("dfs.namenode.fs-limits.min-block-size", "1048576");
    conf.set(YarnConfiguration.NM_ADMIN_USER_ENV, "JAVA_TOOL_OPTIONS=" + OPTIONS);
    if (secure) {
      secure(conf);
    }
    hdfs = new MiniDFSCluster.Builder(conf).numDataNodes(1).build();
    hdfs.waitActive();
    String address = "hdfs://localhost:" + hdfs.getNameNodePort();
    conf.set("fs.defaultFS", address);
    open(FileSystem.get(conf));

    // Its directories are relative to the working directory, else.
    System.setProperty("test.build.data", new File(directory, "yarn").getPath());
    conf.setClass(YarnConfiguration.RM_SCHEDULER, CapacityScheduler.class, ResourceScheduler.class);
    // Half belongs to each; what `default` has of the other's half is taken from it when `urgent` wants it.
    conf.set("yarn.scheduler.capacity.root.queues", "default,urgent");
    for (String queue : new String[] {"default", "urgent"}) {
      conf.set("yarn.scheduler.capacity.root." + queue + ".capacity", "50");
      conf.set("yarn.scheduler.capacity.root." + queue + ".maximum-capacity", "100");
      conf.set("yarn.scheduler.capacity.root." + queue + ".user-limit-factor", "2");
    }
    conf.setBoolean(YarnConfiguration.RM_SCHEDULER_ENABLE_MONITORS, true);
    String preemption = "yarn.resourcemanager.monitor.capacity.preemption.";
    conf.setLong(preemption + "monitoring_interval", 500);
    conf.setLong(preemption + "max_wait_before_kill", 1000);
    conf.setFloat(preemption + "total_preemption_per_round", 1);
    conf.setFloat(preemption + "natural_termination_factor", 1);
    conf.set("yarn.scheduler.capacity.maximum-am-resource-percent", "0.9");
    conf.setInt(YarnConfiguration.RM_SCHEDULER_MINIMUM_ALLOCATION_MB, 128);
    conf.setInt(YarnConfiguration.YARN_MINICLUSTER_NM_PMEM_MB, 4096);
    conf.setInt(YarnConfiguration.NM_VCORES, 8);
    conf.setBoolean(YarnConfiguration.NM_VMEM_CHECK_ENABLED, false);
    conf.set(YarnConfiguration.NM_MAX_PER_DISK_UTILIZATION_PERCENTAGE, "99.5");
    conf.setBoolean(YarnConfiguration.LOG_AGGREGATION_ENABLED, true);
    conf.set(YarnConfiguration.NM_REMOTE_APP_LOG_DIR, "/logs");
    conf.set(YarnConfiguration.YARN_APPLICATION_CLASSPATH, classpath);
    conf.setBoolean(YarnConfiguration.TIMELINE_SERVICE_ENABLED, false);
    conf.setInt(YarnConfiguration.DEBUG_NM_DELETE_DELAY_SEC, 0);
    conf.setLong(YarnConfiguration.RM_AM_EXPIRY_INTERVAL_MS, 600_000);
    conf.setInt(YarnConfiguration.RM_NM_HEARTBEAT_INTERVAL_MS, 200);
    yarn = new MiniYARNCluster("yarn", 2, 1, 1);
    yarn.init(conf);
    yarn.start();
    client(address, classpath);
  }

  /** A KDC; all servers are one principal, since they are one process. */
  private void secure(Configuration conf) throws Exception {
    MiniKdc kdc = new MiniKdc(MiniKdc.createConf(), new File(directory, "kdc"));
    kdc.start();
    File keytab = new File(directory, "server.keytab");
    kdc.createPrincipal(keytab, "hadoop/localhost", "HTTP/localhost");
    kdc.createPrincipal(new File(directory, "user.keytab"), USER);
    File krb5 = new File(directory, "krb5.conf");
    // The client library of C resolves names backwards unless told not to.
    Files.writeString(krb5.toPath(), Files.readString(kdc.getKrb5conf().toPath())
        .replace("[libdefaults]", "[libdefaults]\n    rdns = false\n    dns_canonicalize_hostname = false"));
    String principal = "hadoop/localhost@" + kdc.getRealm();
    conf.set("hadoop.security.authentication", "kerberos");
    for (String server : new String[] {"dfs.namenode.kerberos.", "dfs.datanode.kerberos.", "yarn.resourcemanager.",
        "yarn.nodemanager."}) {
      conf.set(server + "principal", principal);
      conf.set(server.replace("kerberos.", "") + (server.startsWith("dfs") ? "keytab.file" : "keytab"), keytab.getPath());
    }
    conf.set("dfs.web.authentication.kerberos.principal", "HTTP/localhost@" + kdc.getRealm());
    conf.set("dfs.web.authentication.kerberos.keytab", keytab.getPath());
    conf.setBoolean("dfs.block.access.token.enable", true);
    conf.setBoolean("ignore.secure.ports.for.testing", true);
    // Not `dfs.data.transfer.protection`: localizers within the node manager do not read its configuration.
    conf.set("dfs.http.policy", "HTTP_ONLY");
    conf.setBoolean("yarn.resourcemanager.webapp.delegation-token-auth-filter.enabled", false);
    // Nodes have it in /etc.
    conf.set(YarnConfiguration.NM_ADMIN_USER_ENV, "JAVA_TOOL_OPTIONS=" + OPTIONS + " -Djava.security.krb5.conf=" + krb5);
    UserGroupInformation.setConfiguration(conf);
    UserGroupInformation.loginUserFromKeytab(principal, keytab.getPath());
  }

  private void open(FileSystem fs) throws Exception {
    String user = secure ? USER : UserGroupInformation.getCurrentUser().getShortUserName();
    for (String path : new String[] {"/tmp", "/logs", "/user/" + user}) {
      fs.mkdirs(new Path(path));
      fs.setPermission(new Path(path), new FsPermission((short) 01777));
    }
  }

  /** What a client's machine would have. */
  private void client(String address, String classpath) throws Exception {
    File conf = new File(directory, "conf");
    conf.mkdirs();
    Configuration core = new Configuration(false);
    core.set("fs.defaultFS", address);
    if (secure) {
      for (String name : new String[] {"hadoop.security.authentication", "dfs.namenode.kerberos.principal",
          "dfs.datanode.kerberos.principal", YarnConfiguration.RM_PRINCIPAL}) {
        core.set(name, yarn.getConfig().get(name));
      }
    }
    write(core, new File(conf, "core-site.xml"));
    Configuration site = new Configuration(false);
    for (String name : new String[] {YarnConfiguration.RM_ADDRESS, YarnConfiguration.RM_SCHEDULER_ADDRESS,
        YarnConfiguration.RM_RESOURCE_TRACKER_ADDRESS, YarnConfiguration.RM_ADMIN_ADDRESS,
        YarnConfiguration.RM_WEBAPP_ADDRESS, YarnConfiguration.RM_SCHEDULER_MINIMUM_ALLOCATION_MB,
        YarnConfiguration.LOG_AGGREGATION_ENABLED, YarnConfiguration.NM_REMOTE_APP_LOG_DIR}) {
      site.set(name, yarn.getConfig().get(name));
    }
    site.set(YarnConfiguration.YARN_APPLICATION_CLASSPATH, classpath);
    write(site, new File(conf, "yarn-site.xml"));
    File command = new File(directory, "bin/yarn");
    command.getParentFile().mkdirs();
    String jars = System.getProperty("jars");
    String java = "exec java -Xshare:auto -XX:TieredStopAtLevel=1 -cp '" + conf + ":" + jars + "/*' org.apache.hadoop.yarn.client.cli.";
    String script = "#!/bin/sh\n# All that is asked of it.\ncase $1 in\nclasspath) echo '" + conf + ":" + glob(jars) + "' ;;\n"
        + "logs) shift; " + java + "LogsCLI \"$@\" ;;\napplication) " + java + "ApplicationCLI \"$@\" ;;\n"
        + "*) exit 1 ;;\nesac\n";
    Files.write(command.toPath(), script.getBytes());
    command.setExecutable(true);
  }

  private static String glob(String directory) {
    return String.join(":", java.util.Arrays.stream(new File(directory).listFiles()).map(File::getPath).toList());
  }

  private static void write(Configuration conf, File file) throws Exception {
    try (OutputStream out = new FileOutputStream(file)) {
      conf.writeXml(out);
    }
  }
}
